"""Cells of sorted weights with a value each, and merging of neighbours until their codes take few enough bits.

The merge that costs the least squared error a bit that it saves goes first (Equitz, 1989, for entropy in place of a number of
values). A cell that holds zero has the value zero, whatever it is merged with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lianzhi.codebook.slices import Sorted

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """The values, float64 and sorted, the bounds between them, the entropy of their codes a weight, and the squared error."""

    centroids: Tensor
    bounds: Tensor
    entropy: float
    error: float

    def __len__(self) -> int:
        return len(self.centroids)

    @classmethod
    def of(cls, data: Sorted, zeros: int, bounds: Tensor, *, zero: int | None) -> Cells:
        """The cells between `bounds`, that of index `zero` with the value zero; those without weights are left out.

        `zeros` are weights beside those of `data`.
        """
        slices = data.slices_of(bounds)
        counts, sums = slices.counts.double(), slices.sums
        value = torch.where(slices.counts > 0, sums / counts.clamp(min=1), 0.0)
        errors = slices.errors()
        every = counts.clone()
        some = slices.counts > 0
        if zero is not None:
            errors[zero] = slices.squares[zero]
            value[zero] = 0.0
            every[zero] += zeros
            some[zero] |= zeros > 0
        elif zeros:
            every = torch.cat([every, every.new_tensor([float(zeros)])])
        kept = some.nonzero().view(-1)
        return cls(
            value[kept], bounds[kept[1:] - 1].double(), entropy_of(every / every.sum()), float(errors.sum())
        )


def merged(data: Sorted, zeros: int, bounds: Tensor, rate: float) -> Cells:
    """The cells between `bounds` and, where there are zeros, one for these, merged until their entropy is at most `rate`.

    >>> data = Sorted(torch.tensor([1.0, 1.1, 5.0]))
    >>> merged(data, 1, torch.tensor([1.05, 3.0]), 1.5).centroids    # 2 bits before
    tensor([0.0000, 1.0500, 5.0000], dtype=torch.float64)
    """
    edges = bounds.double()
    if zeros:  # a cell of its own, between the largest number below zero and the smallest above it
        negative = data.values[: data.negative][-1:].double()
        positive = data.values[data.negative :][:1].double()
        edges = torch.cat([edges, negative / 2, positive / 2]).unique()
    slices = data.slices_of(edges)
    place = int(torch.searchsorted(edges, edges.new_zeros(1), right=True)) if zeros else None
    if place is not None:
        slices.counts[place] += zeros
    some = slices.counts > 0
    at = some.nonzero().view(-1).tolist()
    columns = (slices.counts, slices.sums, slices.squares)
    rows = np.stack([column[some].double().cpu().numpy() for column in columns])
    holds = np.array([index == place for index in at])
    joined = _merge(rows, holds, rate)
    starts = [at[index] for index in joined]
    new = edges[[start - 1 for start in starts[1:]]]
    zero = None if place is None else max(index for index, start in enumerate(starts) if start <= place)
    return Cells.of(data, zeros, new, zero=zero)


def _merge(rows: Floats, zero: NDArray[np.bool_], rate: float) -> list[int]:
    """Which cells begin one of those that are left; rows are counts, sums and sums of squares."""
    total = rows[0].sum()
    first = list(range(rows.shape[1]))
    while len(first) > 1 and _bits(rows[0], total).sum() > rate * total * (1 + 1e-12):
        both, holds = rows[:, :-1] + rows[:, 1:], zero[:-1] | zero[1:]
        own, bits = _errors(rows, zero), _bits(rows[0], total)
        costs = _errors(both, holds) - own[:-1] - own[1:]
        saved = bits[:-1] + bits[1:] - _bits(both[0], total)
        best = int(np.argmin(np.maximum(costs, 0) / np.maximum(saved, 1e-300)))
        rows = np.concatenate([rows[:, :best], both[:, best : best + 1], rows[:, best + 2 :]], 1)
        zero = np.concatenate([zero[:best], holds[best : best + 1], zero[best + 2 :]])
        del first[best + 1]
    return first


def _errors(rows: Floats, zero: NDArray[np.bool_]) -> Floats:
    counts, sums, squares = rows
    return np.where(zero, squares, np.maximum(squares - sums**2 / counts, 0))


def _bits(counts: Floats, total: float) -> Floats:
    return counts * np.log2(total / counts)


def entropy_of(shares: Tensor) -> float:
    """Bits: sum of -p log2 p.

    >>> entropy_of(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    some = shares[shares > 0]
    return abs(float((some * some.log2()).sum()))
