"""A teacher's outputs: in eval mode, without gradients, and left as it was found."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import DataError
from lianzhi.graph import in_eval
from lianzhi.train.default_step import call


def placed(teacher: nn.Module, device: torch.device) -> nn.Module:
    """The teacher if it is on the device, else a copy of it there: what the caller gave is not moved."""
    first = next(teacher.parameters(), None)
    return teacher if first is None or first.device == device else copy.deepcopy(teacher).to(device)


def teacher_logits(teacher: nn.Module, inputs: Any) -> Tensor:
    """The teacher's logits, computed in eval mode and without gradients."""
    with in_eval(teacher), torch.no_grad():
        return logits_of(call(teacher, inputs), "teacher")


def logits_of(outputs: Any, who: str) -> Tensor:
    """The logits among a model's outputs: the tensor itself, or the entry 'logits'.

    >>> logits_of({"logits": torch.zeros(1, 2)}, "student").shape
    torch.Size([1, 2])
    """
    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(found, Tensor):
        raise DataError(
            f"the {who} returns a {type(outputs).__name__}; distillation needs logits: "
            f"a tensor, or a dict with the entry 'logits'"
        )
    return found
