"""Connectors: what makes a student's features the shape of the teacher's, chosen by the two shapes.

They stand on the student's side, are trained with it, and are dropped when it has learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from lianzhi.errors import DataError
from lianzhi.processes import process
from lianzhi.train.batch_norm import TooFewValues


def connector(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    """Make a connector from features of the shape `student` to the shape `teacher`, both with the batch first.

    >>> connector((1, 16, 8, 8), (1, 16, 8, 8))
    Identity()
    >>> connector((1, 128), (1, 64))
    Linear(in_features=128, out_features=64, bias=True)
    >>> import torch
    >>> connector((1, 16, 16, 16), (1, 64, 8, 8))(torch.zeros(5, 16, 16, 16)).shape
    torch.Size([5, 64, 8, 8])

    | student | teacher | connector |
    |---|---|---|
    | maps | maps, other channels | 1x1 convolution and BatchNorm |
    | maps | maps, other size | the mean over squares (to smaller maps), bilinear interpolation (to larger) |
    | maps | (batch, width) | the mean over positions, and a linear layer |
    | (batch, …, width) | the same, another width | a linear layer |

    Raises:
        DataError: nothing makes the one shape the other.
    """
    student, teacher = tuple(student), tuple(teacher)
    if student[1:] == teacher[1:]:
        return nn.Identity()
    if len(student) == len(teacher) == 4:
        return _between_maps(student, teacher)
    if len(student) == 4 and len(teacher) == 2:
        widen = [] if student[1] == teacher[1] else [nn.Linear(student[1], teacher[1])]
        return nn.Sequential(MeanOverPositions(), *widen)
    if len(student) == len(teacher) in (2, 3) and student[1:-1] == teacher[1:-1]:
        return nn.Linear(student[-1], teacher[-1])
    raise DataError(
        f"no connector goes from features {list(student)} to {list(teacher)}; choose layers whose features are both "
        f"maps (batch, channels, height, width), or both vectors of as many positions"
    )


class Resize(nn.Module):
    """Maps of another size: the mean over squares where they become smaller, else bilinear interpolation."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[2:] == self.size:
            return maps
        if maps.shape[-2] >= self.size[0] and maps.shape[-1] >= self.size[1]:
            return functional.adaptive_avg_pool2d(maps, self.size)
        return functional.interpolate(maps, self.size, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class MeanOverPositions(nn.Module):
    """Maps (batch, channels, height, width) to vectors (batch, channels)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class MapNorm(nn.BatchNorm2d):
    """BatchNorm that takes a batch of one sample at one position too: by its running statistics."""

    def forward(self, maps: Tensor) -> Tensor:
        alone = process()[1] == 1
        if not alone or not self.training or maps.numel() > maps.shape[1]:
            try:
                return super().forward(maps)
            except TooFewValues:  # all processes have one value a channel together: this batch counts as none
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked -= 1
        return functional.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def _between_maps(student: tuple[int, ...], teacher: tuple[int, ...]) -> nn.Module:
    parts: list[nn.Module] = []
    if student[1] != teacher[1]:
        parts += [nn.Conv2d(student[1], teacher[1], 1, bias=False), MapNorm(teacher[1])]
    if student[2:] != teacher[2:]:
        resize = Resize((teacher[2], teacher[3]))
        smaller = teacher[2] * teacher[3] < student[2] * student[3]
        parts.insert(
            0 if smaller else len(parts), resize
        )  # where the maps are small, the convolution is cheap
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
