"""Losses that compare samples with one another, of a batch that lies on several processes.

Such a loss is no mean over samples, so that those of the parts do not add up to that of the whole. Each process
therefore computes it of all samples, of which its own carry gradients:

    ∂L/∂w = Σ over processes of ∂L/∂(own features) · ∂(own features)/∂w

The training loop adds up the processes' gradients, each weighed by its share n / N of the samples; with N / n the factor is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lianzhi.distill.losses.parts import wide
from lianzhi.processes import process
from lianzhi.tasks import Batch


def of_whole_batch(compare: Callable[..., Tensor], batch: Batch, student: Tensor, *others: Tensor) -> Tensor:
    """`compare(student, *others)` of the samples of all processes, the same in all; given are this one's (samples, …).

    >>> own, theirs = torch.ones(2, 3), torch.zeros(2, 3)
    >>> batch = Batch(own, torch.zeros(2), torch.arange(2), 2)
    >>> of_whole_batch(lambda student, teacher: (student - teacher).sum(), batch, own, theirs).item()
    6.0
    """
    if process()[1] == 1:
        return compare(student, *others)
    parts = [tensor if batch.counts else tensor[:0] for tensor in (student, *others)]
    whole = [gathered_rows(part) for part in parts]
    value = compare(*whole)
    factor = len(whole[0]) / len(parts[0]) if batch.counts else 0.0
    still = value.detach()
    return still + factor * (value - still) + 0 * student.sum()  # of a stand-in a gradient of zeros


def gathered_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; this one's alone carry gradients."""
    rank, world = process()
    rows = wide(rows) if rows.is_floating_point() else rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    numbers = [int(count) for count in counts]
    padded = rows.new_zeros(max(numbers), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(parts, padded)
    cut = [part[:number] for part, number in zip(parts, numbers, strict=True)]
    return torch.cat([*cut[:rank], rows, *cut[rank + 1 :]])
