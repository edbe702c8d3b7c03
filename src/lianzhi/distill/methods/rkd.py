"""Relational knowledge distillation: Park et al. 2019 (1904.05068). Samples lie to each other as in the teacher.

The last stage, averaged over its positions: 25 · distances + 50 · angles, and the cross entropy. Samples are compared
with those of their own batch, of all processes; with `accumulate`, of their own part of it.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor

from lianzhi.distill import losses
from lianzhi.distill.methods.by_features import FeatureOptions, choose, embedding, lessons, related
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting
from lianzhi.distill.methods.terms import require_some


class RKDMethodOptions(FeatureOptions):
    """Options of the method `rkd`."""

    distance: float = Field(default=25.0, ge=0, description="weight of the distances")
    angle: float = Field(default=50.0, ge=0, description="weight of the angles")

    @model_validator(mode="after")
    def _relations_count(self) -> RKDMethodOptions:
        if self.weight:
            require_some({"distance": self.distance, "angle": self.angle})
        return self


@registry.register(
    "rkd",
    "Distances and angles between the samples of a batch are those of the teacher",
    paper="https://arxiv.org/abs/1904.05068",
    config=RKDMethodOptions,
)
def build(setting: Setting, options: RKDMethodOptions) -> Lessons:
    """One stage."""

    def compare(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.rkd(student, teacher, distance=options.distance, angle=options.angle)

    layers = choose(setting, options, "last")
    return lessons(setting, options, "rkd", layers, related(compare, embedding))
