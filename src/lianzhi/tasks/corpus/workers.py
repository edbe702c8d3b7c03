"""Work on parts of a stream in so many threads, in order, and no further ahead than there are threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Made = TypeVar("Made")
PARALLEL = "TOKENIZERS_PARALLELISM"  # read by the library at each call


def in_order(
    work: Callable[[Part], Made], parts: Iterable[Part], workers: int | None
) -> Generator[Made, None, None]:
    """What `work` makes of each part, in the order of the parts; without `workers` it has threads of its own.

    >>> list(in_order(len, ["a", "bc", "def"], 2))
    [1, 2, 3]

    At most ``workers + 1`` parts are in memory, those that the caller keeps aside. Closed, it leaves no thread.
    """
    if workers is None:
        yield from map(work, parts)
        return
    begun: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for part in parts:
                begun.append(pool.submit(work, part))
                if len(begun) > workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Told:
    """What the environment said before the first of those who are inside, of whatever thread; the last one puts it back."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, os.environ.get(PARALLEL)

    def enter(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = os.environ.get(PARALLEL)
                os.environ[PARALLEL] = "false"
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside:
                return
            if self.before is None:
                os.environ.pop(PARALLEL, None)
            else:
                os.environ[PARALLEL] = self.before


_TOLD = _Told()


@contextlib.contextmanager
def own_threads(workers: int | None) -> Iterator[None]:
    """With `workers`, tokenizers encode in the thread that calls them, and in no other."""
    if workers is None:
        yield
        return
    _TOLD.enter()
    try:
        yield
    finally:
        _TOLD.leave()
