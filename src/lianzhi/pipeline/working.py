"""What a step is at, where no count of batches says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lianzhi.pipeline.state import Run


@contextlib.contextmanager
def working(run: Run, title: str) -> Iterator[None]:
    """A spinner with a title on a terminal, a line in a log; nothing where the run shows no progress."""
    if not (run.progress and run.leads):
        yield
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(title):
            yield
    else:
        console.print(f"{title} …", markup=False, highlight=False)
        yield
