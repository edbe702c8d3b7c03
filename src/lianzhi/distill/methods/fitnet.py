"""FitNets: Romero et al. 2014 (1412.6550). The student's middle layer learns the teacher's.

The authors train the layers up to the hint first, then the whole by `kd`; `hint_first` does that, in two stages.
By default both losses are trained together, the hint with weight 100, as later work compares it (1910.10699).
"""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.distill import losses
from lianzhi.distill.connectors import connector
from lianzhi.distill.methods.by_features import FeatureOptions, FeatureStep, choose, counts_tokens
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.learner import Learner
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some
from lianzhi.tasks import Batch


class FitNetMethodOptions(FeatureOptions):
    """Options of the method `fitnet`."""

    weight: float = Field(default=100.0, ge=0, description="of the loss on features")
    hint_first: bool = Field(default=False, description="a stage with the hint alone, then one without it")

    @model_validator(mode="after")
    def _each_stage_learns(self) -> FitNetMethodOptions:
        if self.hint_first:
            require_some({"weight": self.weight}, "hint_first, stage 'hint': ")
            require_some({"hard": self.hard, "soft": self.soft}, "hint_first, stage 'fitnet': ")
        return self


@registry.register(
    "fitnet",
    "The features of the student's middle stage become those of the teacher's",
    paper="https://arxiv.org/abs/1412.6550",
    config=FitNetMethodOptions,
)
def build(setting: Setting, options: FitNetMethodOptions) -> Lessons:
    """One stage, ``fitnet``; with `hint_first` two, ``hint`` and ``fitnet``."""
    layers = choose(setting, options, "middle")
    connectors = nn.ModuleList(
        connector(one.shape, other.shape) for one, other in zip(layers.student, layers.teacher, strict=True)
    )

    def compare(student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Tensor:
        mask = mask_of(batch.inputs)
        values = [
            _hint(join(one), other, mask)
            for join, one, other in zip(connectors, student, teacher, strict=True)
        ]
        return sum(values[1:], values[0])

    def stage(name: str, model: nn.Module | None, changes: dict[str, float]) -> Stage:
        step = FeatureStep(setting, options.model_copy(update=changes), "fitnet", layers, compare)
        return Stage(name, step, model, choose="hard" not in changes)

    learner = Learner(setting.student, {"connectors": connectors})
    if not options.hint_first:
        return Lessons([stage("fitnet", learner, {})])
    return Lessons(
        [stage("hint", learner, {"hard": 0.0, "soft": 0.0}), stage("fitnet", None, {"weight": 0.0})]
    )


def _hint(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """The loss of one pair of features; of those of tokens without padding, the mean over samples of each one's mean."""
    if counts_tokens(student, mask):
        return losses.hidden_mse(student, teacher, mask=mask, by_sample=True)
    return losses.fitnet(student, teacher)
