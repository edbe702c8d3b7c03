"""The memory of contrastive distillation: for every training sample what each of two networks last said of it.

Everything is a buffer: checkpoints hold it, and a run that goes on finds it as it was. Which samples are drawn is
decided by torch's generator, which the training loop seeds by (seed, step).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lianzhi.distill.losses.crd import similarities
from lianzhi.distill.losses.features import unit
from lianzhi.processes import from_leader, gathered, process

UNKNOWN = -1


class Memory(nn.Module):
    """Directions (samples, size) of the student and of the teacher, and each sample's class.

    >>> memory = Memory(samples=10, size=4)
    >>> negatives, mask = memory.draw(torch.tensor([3, 7]), torch.tensor([0, 1]), count=6)
    >>> negatives.shape, mask.shape
    (torch.Size([6]), torch.Size([2, 6]))

    It begins with random numbers, whose length is about 1.
    """

    student: Tensor
    teacher: Tensor
    classes: Tensor
    normalizers: Tensor

    def __init__(self, samples: int, size: int) -> None:
        super().__init__()
        bound = math.sqrt(3 / size)
        for name in ("student", "teacher"):
            self.register_buffer(name, torch.empty(samples, size).uniform_(-bound, bound))
        self.register_buffer("classes", torch.full((samples,), UNKNOWN))
        self.register_buffer("normalizers", torch.zeros(2))

    def draw(self, ids: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Numbers of `count` samples, the same in all processes, and where (batch, count) they are negatives.

        A sample is no negative of itself, nor of one of its class; a class is known once its sample was seen.
        """
        device = self.classes.device
        chosen = from_leader(torch.randperm(len(self.classes))[:count]).to(device)
        mask = chosen != ids.to(device)[:, None]
        if _are_classes(labels):
            mask &= self.classes[chosen] != labels.to(device)[:, None]
        return chosen, mask

    @torch.no_grad()
    def fix_normalizers(self, student: Tensor, teacher: Tensor, chosen: Tensor, temperature: float) -> None:
        """Set both constants Z = samples · mean of exp(similarity / temperature), once: by the first batch."""
        if self.normalizers.any():
            return
        pairs = ((student, self.teacher), (teacher, self.student))
        sums = [(similarities(one, other[chosen]) / temperature).exp().double().sum() for one, other in pairs]
        count = torch.tensor(len(student) * len(chosen), dtype=torch.float64, device=sums[0].device)
        parts = torch.stack([part[0] for part in _of_all(torch.stack([*sums, count]))]).sum(0)
        self.normalizers.copy_(len(self.classes) * parts[:2] / parts[2])

    @torch.no_grad()
    def remember(
        self, ids: Tensor, labels: Tensor, student: Tensor, teacher: Tensor, *, momentum: float
    ) -> None:
        """Move the batch's samples, of all processes, to momentum · old + (1 - momentum) · new, of length 1."""
        known = labels.long() if _are_classes(labels) else torch.full_like(ids, UNKNOWN)
        for part in _of_all(ids, known, student, teacher):
            numbers, classes, *directions = (item.to(self.classes.device) for item in part)
            self.classes[numbers] = classes
            for kept, new in zip((self.student, self.teacher), directions, strict=True):
                kept[numbers] = unit(momentum * kept[numbers] + (1 - momentum) * new.to(kept.dtype))


def _of_all(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The tensors of every process."""
    return [tensors] if process()[1] == 1 else gathered(tuple(tensor.cpu() for tensor in tensors))


def _are_classes(labels: Tensor) -> bool:
    return labels.ndim == 1 and not labels.dtype.is_floating_point
