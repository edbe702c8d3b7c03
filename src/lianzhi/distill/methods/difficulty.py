"""How hard it is to do without a group of blocks: what the model says when its successor alone stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.replacing import Stack
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.tasks import Batch, Task
from lianzhi.train.default_step import call


def difficulty(stack: Stack, task: Task, samples: int, batch_size: int = 32) -> list[float]:
    """For each module the KL divergence from the predecessor's probabilities to those with this one replaced.

    The mean over the first `samples` of the calibration split, or of the training split where there is none; for one
    output the mean squared difference. Nothing is changed, and nothing drawn.
    """
    count, rows = len(stack.places), partial(divergences, temperature=1.0)
    sums, seen = torch.zeros(count, dtype=torch.float64), 0
    with in_eval(stack.student), torch.no_grad():
        for batch in _first(task, samples, batch_size):
            wanted = _logits(stack, batch, [False] * count)
            for module in range(count):
                found = _logits(stack, batch, [place == module for place in range(count)])
                sums[module] += mean_by_sample(
                    rows, found, wanted, mask_of(batch.inputs)
                ).double().cpu() * len(batch.ids)
            seen += len(batch.ids)
    return [value / max(seen, 1) for value in sums.tolist()]


def _logits(stack: Stack, batch: Batch, chosen: list[bool | Tensor]) -> Tensor:
    student: nn.Module = stack.student
    with stack.replaced(chosen):
        return logits_of(call(student, moved(batch.inputs, device_of(student))), "student")


def _first(task: Task, samples: int, batch_size: int) -> Iterator[Batch]:
    """Whole batches, until there are so many samples."""
    seen = 0
    for batch in task.batches("calibration" if task.has("calibration") else "train", batch_size):
        if seen >= samples:
            return
        seen += len(batch.ids)
        yield batch
