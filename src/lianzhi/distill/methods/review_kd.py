"""Knowledge review: Chen et al. 2021 (2104.09044). Each stage of the teacher teaches that stage of the student
and all deeper ones.

The ends of all stages, and the last one averaged over its positions, as the authors take them; the student's are
fused first (`fusion`). The authors' weight is 0.6 for ResNet-56 to ResNet-20 on CIFAR-100, and 1 to 8 for other
pairs; it grows from 0 over 20 of 240 epochs. They compare features before the last ReLU of a stage; here those
after it are compared, which can be captured from any model.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, lessons, require_shapes
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.fusion import Fusion
from lianzhi.distill.methods.lesson import Lessons, Setting
from lianzhi.tasks import Batch


class ReviewKDMethodOptions(FeatureOptions):
    """Options of the method `review_kd`."""

    warmup: float = Field(
        default=1 / 12, ge=0, lt=1, description="share of training in which the weight grows from 0"
    )
    width: int = Field(default=512, ge=1, description="most channels inside the fusion")
    levels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(4, 2, 1), description="parts a side into which maps are averaged"
    )


@registry.register(
    "review_kd",
    "Each stage of the teacher teaches the student's stage of its depth and all deeper ones",
    paper="https://arxiv.org/abs/2104.09044",
    config=ReviewKDMethodOptions,
)
def build(setting: Setting, options: ReviewKDMethodOptions) -> Lessons:
    """One stage."""
    layers = choose(setting, options, "all")
    require_shapes("review_kd", [*layers.student, *layers.teacher], 4)
    student, teacher = (
        [feature.shape for feature in side] + [(*side[-1].shape[:2], 1, 1)]
        for side in (layers.student, layers.teacher)
    )
    fusion = Fusion(student, teacher, width=options.width)

    def compare(student: list[Tensor], teacher: list[Tensor], _: Batch) -> Tensor:
        return losses.review_kd(fusion(_with_mean(student)), _with_mean(teacher), levels=options.levels)

    return lessons(setting, options, "review_kd", layers, compare, {"fusion": fusion})


def _with_mean(maps: list[Tensor]) -> list[Tensor]:
    """The stages, and the last one averaged over its positions as one more."""
    return [*maps, maps[-1].mean((2, 3), keepdim=True)]
