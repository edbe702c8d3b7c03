"""Knowledge review's hierarchical context loss: Chen et al. 2021 (2104.09044), section 3.3.

    loss = sum over stages of ( MSE(s, t) + MSE(s₄, t₄) / 2 + MSE(s₂, t₂) / 4 + MSE(s₁, t₁) / 8 ) / (1 + 1/2 + 1/4 + 1/8)

s_l is the map averaged down to l x l. A level that is not smaller than the map is left out, and the next takes its weight. The
weights are the authors' code's; the paper does not give them. The student's features are those that were fused
from the stages (`distill.methods.fusion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import same
from lianzhi.distill.losses.parts import mean_or_zero
from lianzhi.errors import DataError

Level = Annotated[int, Field(ge=1)]


class ReviewKDOptions(Config):
    """Options of `review_kd`."""

    levels: tuple[Level, ...] = (4, 2, 1)


@registry.register(
    "review_kd",
    "mean squared error between maps, and between averages of them in 4, 2 and 1 parts",
    paper="https://arxiv.org/abs/2104.09044",
    config=ReviewKDOptions,
)
def review_kd(
    student: Tensor | Sequence[Tensor],
    teacher: Tensor | Sequence[Tensor],
    *,
    levels: Sequence[int] = (4, 2, 1),
) -> Tensor:
    """Make the student's maps those of the teacher, at several scales.

    >>> import torch
    >>> maps = [torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, 4, 4)]
    >>> review_kd(maps, [one + 2 for one in maps]).item()            # 4 a stage, at every scale
    8.0

    Features are (batch, channels, height, width), one stage or a list of them, each of the teacher's shape. No
    gradient goes to the teacher.

    Raises:
        RecipeError: a level is below 1.
        DataError: the shapes differ, or the numbers of stages.
    """
    options = ReviewKDOptions(levels=tuple(levels))
    ours = [student] if isinstance(student, Tensor) else list(student)
    theirs = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if len(ours) != len(theirs) or not ours:
        raise DataError(
            f"{len(ours)} stages of the student and {len(theirs)} of the teacher; they go in pairs"
        )
    losses = [_stage(*same(one, other), options.levels) for one, other in zip(ours, theirs, strict=True)]
    return sum(losses[1:], losses[0])


def _stage(student: Tensor, teacher: Tensor, levels: Sequence[int]) -> Tensor:
    if student.ndim != 4:
        raise DataError(
            f"features have shape {list(student.shape)}; they must be (batch, channels, height, width)"
        )
    difference = student - teacher  # averaging is linear
    loss, total, weight = mean_or_zero(difference.square()), 1.0, 1.0
    for level in levels:
        if level < min(student.shape[2:]):
            weight /= 2
            loss = loss + weight * mean_or_zero(functional.adaptive_avg_pool2d(difference, level).square())
            total += weight
    return loss / total
