"""The order of a split of texts: which samples make each batch, a function of (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lianzhi.tasks import hashing

POOL = 50  # batches that are sorted by length together


def batches_of(
    size: int, batch_size: int, epoch: int | None, seed: int, *, lengths: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """The ids of each batch. Without an epoch they come in order; with `lengths`, batches are of texts of like length.

    >>> [part.tolist() for part in batches_of(5, 2, None, 0)]
    [[0, 1], [2, 3], [4]]
    >>> sorted(sorted(part.tolist()) for part in batches_of(4, 2, 0, 0, lengths=np.array([9, 2, 2, 9])))
    [[0, 3], [1, 2]]
    """
    order = np.arange(size)
    if epoch is not None:
        order = hashing.permutation(hashing.key(seed, epoch, "order"), size)
    if epoch is None or lengths is None:
        return [order[start : start + batch_size] for start in range(0, size, batch_size)]
    batches: list[NDArray[np.int64]] = []
    for start in range(0, size, batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[place : place + batch_size] for place in range(0, len(pool), batch_size)]
    shuffled = hashing.permutation(hashing.key(seed, epoch, "batches"), len(batches))
    return [batches[number] for number in shuffled]
