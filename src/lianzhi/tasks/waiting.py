"""Say what is being waited for, where someone is watching."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show a spinner on a terminal's standard error; elsewhere show nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
