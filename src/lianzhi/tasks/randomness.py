"""Random state of its own for someone else's data loader.

Shuffling and augmentation in a user's data set draw from the global generators of PyTorch, NumPy and Python.
Each step into the loader runs under a state that depends on (seed, epoch) only and is put aside again, so that
the order is the same in every process and after a resume, and dropout is not disturbed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lianzhi.tasks import hashing


class OwnRandomness:
    """Global random state that holds only inside ``with``, and goes on where it stopped.

    >>> own = OwnRandomness(0, 1, [])
    >>> before = torch.get_rng_state()
    >>> with own: first = torch.rand(2)
    >>> with own: second = torch.rand(2)
    >>> again = OwnRandomness(0, 1, [])
    >>> with again: both = torch.rand(4)
    >>> torch.equal(torch.cat([first, second]), both), torch.equal(before, torch.get_rng_state())
    (True, True)
    """

    def __init__(self, seed: int, epoch: int, generators: list[torch.Generator]) -> None:
        number = int(hashing.key(seed, epoch, "loader")) >> 1
        for generator in generators:
            generator.manual_seed(number)
        with _outside():
            torch.default_generator.manual_seed(number)
            np.random.seed(number % 2**32)
            random.seed(number)
            self._state = _read()
        self._outer: Any = None

    def __enter__(self) -> OwnRandomness:
        self._outer = _read()
        _write(self._state)
        return self

    def __exit__(self, *_: object) -> None:
        self._state = _read()
        _write(self._outer)


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    outer = _read()
    try:
        yield
    finally:
        _write(outer)


def _read() -> tuple[Any, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _write(state: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
