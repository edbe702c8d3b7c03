"""What the losses on hidden states and attention share: which positions count, and what the mean is over.

A mean over all positions that count weighs long sentences more; parts of a batch then only give the gradient of the
whole if each knows how many tokens the others have. With `by_sample` each sample's own mean is taken first: the
training loop weighs parts by their samples, so that accumulation and several processes change nothing.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.parts import mean_or_zero, wide
from lianzhi.errors import DataError


class PositionOptions(Config):
    """The option that losses on positions have in common."""

    by_sample: bool = Field(default=False, description="the mean of each sample first, then over samples")


def positions(values: Tensor, other: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states (batch, …, width) in float32 or wider, with zeros where nothing counts, and the mask as bool.

    The widths may differ. What stands at padded positions, NaN included, has no part in a value or a gradient.

    Raises:
        DataError: the axes before the width differ, or the mask is not of their shape.
    """
    if values.shape[:-1] != other.shape[:-1] or values.ndim < 2:
        raise DataError(
            f"the student's hidden states have shape {list(values.shape)} and the teacher's {list(other.shape)}; "
            f"both must be (batch, …, width) of the same positions"
        )
    keep = as_bool(mask, tuple(values.shape[:-1]))
    student, teacher = wide(values), wide(other.detach())
    if keep is not None:
        student, teacher = (item.masked_fill(~keep.unsqueeze(-1), 0) for item in (student, teacher))
    return student, teacher, keep


def as_bool(mask: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """The mask as bool. Raises `DataError` unless it has this shape."""
    if mask is not None and tuple(mask.shape) != shape:
        raise DataError(
            f"the mask has shape {list(mask.shape)}; it needs {list(shape)}, true where a token counts"
        )
    return None if mask is None else mask.bool()


def pairs(mask: Tensor) -> Tensor:
    """Which scores count, (batch, 1, queries, keys): those of a token that counts to one that counts.

    >>> import torch
    >>> pairs(torch.tensor([[1, 1, 0]])).int().tolist()
    [[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]]
    """
    mask = mask.bool()
    return (mask[:, :, None] & mask[:, None, :]).unsqueeze(1)


def scores(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores (batch, heads, queries, keys) in float32 or wider, and the mask (batch, tokens) as bool.

    Raises:
        DataError: the shapes differ, or the mask is not (batch, tokens) of scores from tokens to themselves.
    """
    if student.shape != teacher.shape or student.ndim != 4:
        raise DataError(
            f"the student's scores have shape {list(student.shape)} and the teacher's {list(teacher.shape)}; "
            f"both must be (batch, heads, tokens, tokens) with as many heads; minilm_v2 takes any numbers of heads"
        )
    keep = as_bool(mask, (student.shape[0], student.shape[2]))
    if keep is not None and student.shape[2] != student.shape[3]:
        raise DataError(f"scores {list(student.shape)} with a mask must be from the tokens to themselves")
    return wide(student), wide(teacher.detach()), keep


def mean_of(values: Tensor, keep: Tensor | None, by_sample: bool) -> Tensor:
    """The mean of the values that count, (batch, …); `keep` is broadcast to them.

    >>> import torch
    >>> values, keep = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[True, True], [True, False]])
    >>> mean_of(values, keep, False).item(), mean_of(values, keep, True).item()
    (3.0, 3.5)
    """
    if keep is None:
        return mean_or_zero(values)
    keep = keep.expand_as(values)
    values = values.masked_fill(~keep, 0)
    if by_sample:
        counts = keep.flatten(1).sum(1).clamp(min=1)
        return mean_or_zero(values.flatten(1).sum(1) / counts)
    return values.sum() / keep.sum().clamp(min=1)
