"""The exact validation metric during training: every sample once, gathered from all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lianzhi.processes import gathered, process
from lianzhi.train.default_step import call

if TYPE_CHECKING:
    from lianzhi.tasks import Task


def validate(model: nn.Module, task: Task, *, batch_size: int, device: torch.device) -> float:
    """The task's first metric on its validation split. The model is in eval mode, without gradients."""
    rank, world = process()
    parts = []
    for batch in task.batches("validation", batch_size, rank=rank, world=world):
        if len(batch.ids):
            outputs = call(model, move(batch.inputs, device))
            labels = move(batch.labels, device)
            outputs, labels = move(task.condense(outputs, labels), torch.device("cpu"))
            parts.append((batch.ids, outputs, labels))
    everything = [part for share in gathered(parts) for part in share]
    order = torch.cat([ids for ids, _, _ in everything]).argsort(stable=True)
    outputs = join([outputs for _, outputs, _ in everything], order)
    labels = join([labels for _, _, labels in everything], order)
    return float(task.metrics[task.metric](outputs, labels))


def join(parts: list[Any], order: Tensor) -> Any:
    """Concatenate tensors, or tuples or dicts of them, and put the samples in order.

    >>> join([torch.tensor([3, 1]), torch.tensor([2])], torch.tensor([1, 2, 0]))
    tensor([1, 2, 3])
    """
    if isinstance(parts[0], dict):
        return {key: join([part[key] for part in parts], order) for key in parts[0]}
    if isinstance(parts[0], (tuple, list)):
        return tuple(join(list(column), order) for column in zip(*parts, strict=True))
    return torch.cat(parts)[order] if isinstance(parts[0], Tensor) else parts[0]


def move(value: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Tensors, in tuples and dicts as well, on the device."""
    if isinstance(value, Tensor):
        if channels_last and value.ndim == 4:
            return value.to(device, memory_format=torch.channels_last)
        return value.to(device)
    if isinstance(value, dict):
        return {key: move(item, device, channels_last=channels_last) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(move(item, device, channels_last=channels_last) for item in value)
    return value
