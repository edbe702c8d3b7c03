"""A bar over the batches of something that does not train; a line now and then where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

PLAIN_SECONDS = 20.0  # between the lines of a log


def shown(batches: Iterator[Any], steps: int, progress: bool, title: str) -> Iterator[Any]:
    """The batches as they come; with `progress` the bar moves with them.

    >>> list(shown(iter([1, 2]), 2, False, "evaluate"))
    [1, 2]
    """
    if not progress:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(batches, total=steps, description=title, console=console, transient=True)
        return
    last = time.monotonic()
    for done, batch in enumerate(batches):
        if time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            console.print(f"{title} {done}/{steps} batches", markup=False, highlight=False, soft_wrap=True)
        yield batch
