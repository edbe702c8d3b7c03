"""DIST: Huang et al. 2022 (2205.10536), for any teacher and student of one classification.

    loss = the task's loss + T² · (beta · inter + gamma · intra)

The intra-class part compares the samples of a batch, of all processes; with gradient accumulation it sees those of one
part at a time.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lianzhi.distill import losses
from lianzhi.distill.losses.dist import DISTOptions, relations
from lianzhi.distill.methods.by_logits import LogitStep
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some
from lianzhi.distill.methods.whole_batch import of_whole_batch
from lianzhi.tasks import Batch


class DISTMethodOptions(DISTOptions):
    """Options of the method `dist`."""

    hard: float = Field(default=1.0, ge=0, description="of the task's loss")

    @model_validator(mode="after")
    def _something_counts(self) -> DISTMethodOptions:
        require_some({"beta": self.beta, "gamma": self.gamma, "hard": self.hard})
        return self


@registry.register(
    "dist",
    "The student's probabilities are related as the teacher's, within a sample and within a class",
    paper="https://arxiv.org/abs/2205.10536",
    config=DISTMethodOptions,
)
def build(setting: Setting, options: DISTMethodOptions) -> Lessons:
    """One stage.

    A regression has no classes: `soft` is the mean squared error of the outputs, with weight 1.
    """

    def both(student: Tensor, teacher: Tensor) -> Tensor:
        return torch.stack(relations(student, teacher, options.temperature))

    def compare(student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        if student.shape[-1] == 1:
            return {"soft": (1.0, losses.logit_mse(student, teacher))}
        inter, intra = of_whole_batch(both, batch, student, teacher)
        return {"inter": (options.beta, inter), "intra": (options.gamma, intra)}

    assert setting.source is not None
    setting.require_labels(options.hard, "hard: 0")
    step = LogitStep("dist", setting.source, compare, hard=options.hard, loss=setting.loss)
    return Lessons([Stage("dist", step)])
