"""What the losses on features share: shapes are compared, sizes made equal, products taken in full precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lianzhi.distill.losses.parts import wide
from lianzhi.errors import DataError


def pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or wider, the teacher's without gradient; they must be of the same samples.

    >>> student, teacher = pair(torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 5, requires_grad=True))
    >>> student.dtype, teacher.requires_grad
    (torch.float32, False)
    """
    if min(student.ndim, teacher.ndim) < 2 or len(student) != len(teacher):
        raise DataError(
            f"the student's features have shape {list(student.shape)} and the teacher's {list(teacher.shape)}; "
            f"both must be (batch, …) of the same samples"
        )
    return wide(student), wide(teacher.detach())


def vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (batch, numbers); how many numbers a sample has may differ.

    >>> [list(side.shape) for side in vectors(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8))]
    [[2, 48], [2, 8]]
    """
    student, teacher = pair(student, teacher)
    return student.flatten(1), teacher.flatten(1)


def maps(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (batch, channels, height, width) of one size: the larger map is averaged down to the smaller.

    >>> [list(side.shape) for side in maps(torch.zeros(2, 3, 8, 8), torch.zeros(2, 16, 4, 4))]
    [[2, 3, 4, 4], [2, 16, 4, 4]]
    """
    student, teacher = pair(student, teacher)
    if student.ndim != 4 or teacher.ndim != 4:
        raise DataError(
            f"the student's features have shape {list(student.shape)} and the teacher's {list(teacher.shape)}; "
            f"both must be maps: (batch, channels, height, width)"
        )
    height, width = (min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return _averaged(student, (height, width)), _averaged(teacher, (height, width))


def same(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are; they must have the same shape."""
    if student.shape != teacher.shape:
        raise DataError(
            f"the student's features have shape {list(student.shape)} and the teacher's {list(teacher.shape)}; "
            f"a connector must make them equal first (distill.connectors.connector)"
        )
    return pair(student, teacher)


def unit(values: Tensor) -> Tensor:
    """Scale the last part of a shape to length 1; a zero vector stays zero, and gets no gradient.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    sizes = lengths(values).unsqueeze(-1)
    some = sizes > torch.finfo(values.dtype).tiny
    return values * torch.where(some, 1 / torch.where(some, sizes, 1.0), 0.0)


def lengths(values: Tensor) -> Tensor:
    """Lengths of vectors (…, size); that of a zero vector has a gradient of 0, and so has that gradient.

    >>> lengths(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.])

    PyTorch's own norm has the first, and NaN for the second.
    """
    some = (values.detach() != 0).any(-1, keepdim=True)
    found = torch.linalg.vector_norm(torch.where(some, values, 1.0), dim=-1)
    return torch.where(some.squeeze(-1), found, 0.0)


def products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of all rows with all rows, (…, n, size) with (…, m, size), outside of mixed precision.

    >>> products(torch.eye(2), torch.tensor([[2.0, 3.0]]))
    tensor([[2.],
            [3.]])
    """
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.transpose(-1, -2)


def _averaged(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if features.shape[2:] == size else functional.adaptive_avg_pool2d(features, size)
