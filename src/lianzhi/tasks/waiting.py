"""Say what is being waited for, where someone is watching: a spinner, or a bar over things done one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


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


def tracked(items: Sequence[T], title: str, *, shown: bool) -> Iterator[T]:
    """The items, under a bar on stderr if that is a terminal.

    >>> list(tracked([1, 2], "count", shown=True))
    [1, 2]
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield from items
        return
    yield from track(items, description=title, console=console, transient=True)


@contextlib.contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told of each part of `total` that is done, under a bar on stderr if that is a terminal.

    >>> with counting("read", 3) as done: done(2)
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda amount: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)
