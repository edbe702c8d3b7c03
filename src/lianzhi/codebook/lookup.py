"""A weight that is looked up in a codebook, with the gradient that the chain rule gives: a centroid's is the sum of its weights'.

The sums are taken in a fixed order, so that a run repeats itself to the bit on a GPU too, where adding by atomics would not:
weights are listed centroid by centroid in rows of a fixed width, the rows are summed, and their sums again in the same way
until one row a centroid is left. Zeros, which have no centroid, are in no row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDTH = 256
PART = (
    2**18
)  # codes that are sorted at a time, so that what is made of them stays small and in the processor's cache


def rows_by_code(codes: Tensor, count: int, width: int = WIDTH) -> list[Tensor]:
    """Tables of indices, ``(rows, width)``, that sum values by their code (1 to `count`; 0 is nowhere), one after the other.

    An index equal to the number of values stands for none.

    >>> [table.tolist() for table in rows_by_code(torch.tensor([2, 0, 1, 2, 2]), 2, width=2)]
    [[[2, 5], [0, 3], [4, 5]], [[0, 3], [1, 2]]]
    """
    codes = codes.flatten()
    tables = []
    while True:
        table, lengths = _rows(codes, count, width)
        tables.append(table)
        if len(table) == count:
            return tables
        codes = torch.arange(1, count + 1, device=codes.device).repeat_interleave(lengths)


def _rows(codes: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """The table of one level, and how many rows each code has."""
    sizes = torch.zeros(count + 1, dtype=torch.int64, device=codes.device)
    for part in codes.split(PART):
        sizes += torch.bincount(part, minlength=count + 1)
    lengths = ((sizes[1:] + width - 1) // width).clamp(min=1)  # a code without weights has an empty row
    table = torch.full((int(lengths.sum()), width), codes.numel(), dtype=torch.int32, device=codes.device)
    empty = (lengths.cumsum(0) - lengths) * width  # the first place of each code that has nothing yet
    narrow = torch.int16 if count < 2**15 else torch.int32  # sorted in less time
    for number, part in enumerate(codes.split(PART)):
        order = part.to(narrow).argsort(stable=True)
        counts = torch.bincount(part, minlength=count + 1)
        order, counts = order[counts[0] :], counts[1:]
        inside = torch.arange(len(order), device=codes.device)
        places = inside + (empty - counts.cumsum(0) + counts).repeat_interleave(counts)
        table.view(-1)[places] = (order + number * PART).int()
        empty += counts
    return table, lengths


def sum_rows(values: Tensor, tables: list[Tensor]) -> Tensor:
    """The sums of values by code, by the tables of `rows_by_code`; in float32 or wider.

    >>> codes = torch.tensor([2, 0, 1, 2, 2])
    >>> sum_rows(torch.tensor([1.0, 50.0, 3.0, 4.0, 5.0]), rows_by_code(codes, 2, width=2))
    tensor([ 3., 10.])
    """
    values = values.flatten()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    for table in tables:
        padded = torch.cat([values, values.new_zeros(1)])
        values = padded.index_select(0, table.view(-1)).view(table.shape).sum(1)
    return values


class _Lookup(torch.autograd.Function):
    """`lookup`, whose backward sums by rows."""

    @staticmethod
    def forward(ctx: Any, centroids: Tensor, codes: Tensor, *tables: Tensor) -> Tensor:
        ctx.tables = tables
        ctx.dtype = centroids.dtype
        values = torch.cat([centroids.new_zeros(1), centroids])
        return values.index_select(0, codes.view(-1)).view(codes.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].to_dense()  # a table may give a sparse one
        return sum_rows(gradient, list(ctx.tables)).to(ctx.dtype), None, *(None for _ in ctx.tables)


def lookup(centroids: Tensor, codes: Tensor, tables: list[Tensor]) -> Tensor:
    """The weights that int32 codes stand for: 0 is zero, i the i-th centroid, counted from 1.

    >>> centroids, codes = torch.tensor([0.5, -1.0], requires_grad=True), torch.tensor([[2, 0], [1, 2]]).int()
    >>> weight = lookup(centroids, codes, rows_by_code(codes, 2)); weight
    tensor([[-1.0000,  0.0000],
            [ 0.5000, -1.0000]], grad_fn=<_LookupBackward>)
    >>> (weight * torch.tensor([[1.0, 7.0], [2.0, 3.0]])).sum().backward(); centroids.grad
    tensor([2., 4.])
    """
    result: Tensor = _Lookup.apply(centroids, codes, *tables)
    return result
