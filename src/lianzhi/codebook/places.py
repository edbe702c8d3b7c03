"""Where numbers lie among a few bounds: binary search for few of them, a table of their upper halves for many.

A search guesses wrong at every other comparison, and a processor pays for each. The upper 16 bits of a float32 say between which
two bounds it lies, unless a bound has the same upper half: then a comparison with that bound decides.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 2**16  # below it, making the tables takes longer than the search
PART = 2**17  # numbers at a time, so that what is made of them stays in the processor's cache
HALVES = 2**15  # upper halves of one sign
MOST = 4  # bounds with the same upper half: more comparisons take longer than the search


def place(values: Tensor, bounds: Tensor) -> Tensor:
    """How many of `bounds` (sorted) are at most each value, all float32: ``bucketize`` with ``right=True``, as int32.

    >>> place(torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.0, 0.5, 1.0]))
    tensor([0, 2, 3], dtype=torch.int32)
    """
    values = values.contiguous()
    tables = _tables(bounds) if values.device.type == "cpu" and values.numel() >= FEW else None
    if tables is None:
        return torch.bucketize(values, bounds, right=True, out_int32=True)
    below, inside = tables
    found = torch.empty(values.shape, dtype=torch.int32)
    for part, places in zip(values.view(-1).split(PART), found.view(-1).split(PART), strict=True):
        half = (part.view(torch.int32) >> 16).add_(HALVES)
        torch.index_select(below, 0, half, out=places)
        for bound in inside:
            places.add_(part >= bound.index_select(0, half))
    return found


def _tables(bounds: Tensor) -> tuple[Tensor, list[Tensor]] | None:
    """For each upper half: how many bounds have a lower one, and those that have the same, if they are few."""
    bounds = torch.where(bounds == 0, -0.0, bounds)  # the lower of two equal numbers
    half = (bounds.view(torch.int32) >> 16).long()
    order = torch.where(
        half < 0, -1 - half, half + HALVES
    )  # by size: a greater negative half is a smaller number
    counts = torch.bincount(order, minlength=2 * HALVES)
    most = int(counts.max())
    if most > MOST:
        return None
    below = counts.cumsum(0) - counts
    rank = torch.arange(len(bounds)) - below[order]
    inside = torch.full((most, 2 * HALVES), torch.nan)  # at most nothing
    inside[rank, order] = bounds
    return _by_half(below.int()), [_by_half(row) for row in inside]


def _by_half(table: Tensor) -> Tensor:
    """From the order by size to that of the halves as signed numbers."""
    return torch.cat([table[:HALVES].flip(0), table[HALVES:]])
