"""A teacher's outputs: in eval mode, without gradients, and left as it was found; computed, or kept by sample."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lianzhi.errors import DataError
from lianzhi.graph import in_eval
from lianzhi.train.default_step import call

if TYPE_CHECKING:
    from lianzhi.distill.teacher_cache import Kept
    from lianzhi.tasks import Batch


class Logits:
    """The teacher's logits of a batch.

    >>> from lianzhi.tasks import Batch
    >>> source = Logits(nn.Linear(4, 3))
    >>> source(Batch(torch.ones(2, 4), torch.tensor([0, 2]), torch.arange(2), 2), torch.device("cpu")).shape
    torch.Size([2, 3])

    With `keep`, which reads or makes what is kept, `prepare` gets them all at once, and no batch runs the teacher.
    """

    def __init__(self, teacher: nn.Module, keep: Callable[[], Kept] | None = None) -> None:
        self.given = self.teacher = teacher  # and where it is now
        self.keep = keep
        self.kept: Kept | None = None

    def prepare(self) -> None:
        """Read or compute what is kept, if anything is to be."""
        if self.keep is not None and self.kept is None:
            self.kept = self.keep()

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        """Logits (samples, classes) on the device."""
        self.prepare()
        if self.kept is not None:
            return self.kept.logits(batch.ids).to(device)
        return teacher_logits(self.on(device), batch.inputs)

    def on(self, device: torch.device) -> nn.Module:
        """The teacher if it is on the device, else a copy of it there, which is made once. See `placed`."""
        self.teacher = placed(self.teacher, device)
        return self.teacher


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
