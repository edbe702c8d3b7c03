"""Decoupled knowledge distillation: Zhao et al. 2022 (2203.08679), for any teacher and student of one classification.

    loss = the task's loss + T² · (alpha · TCKD + beta · NCKD)

The second part grows from 0 over 20 of 240 epochs, as in the authors' code. Their beta is 8 for ResNet-32x4 to 8x4
on CIFAR-100, 6 for wide ResNets and VGG, 2 for ResNet-56 to ResNet-20; the paper has it follow how sure the teacher is.

With `standardize` z-scores of the logits are compared (2403.01427), with T 2 and nine times the weight of both
parts. The authors' script sets the temperature of `kd` where it means this one's, and makes beta 81. With few classes
a large beta is harmful there: the other classes' z-scores lie close together where the label's is the largest possible, as the
sure teacher's is, and just as close where it is the smallest. A student of 4 classes stayed there; with beta 1 it did not.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.losses.dkd import decoupled
from lianzhi.distill.losses.parts import as_classes
from lianzhi.distill.methods.by_logits import LogitStep
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some
from lianzhi.tasks import Batch


class DKDMethodOptions(Config):
    """Options of the method `dkd`.

    >>> options = DKDMethodOptions(standardize=True)
    >>> options.temperature, options.weight
    (2.0, 9.0)
    """

    alpha: float = Field(default=1.0, ge=0, description="of the label's class against the rest")
    beta: float = Field(default=8.0, ge=0, description="of the other classes among themselves")
    temperature: float = Field(default=4.0, gt=0, description="with standardize 2")
    standardize: bool = Field(default=False, description="compare z-scores of the logits")
    weight: float = Field(default=1.0, ge=0, description="of alpha and beta together; with standardize 9")
    hard: float = Field(default=1.0, ge=0, description="of the task's loss")
    warmup: float = Field(
        default=1 / 12, ge=0, lt=1, description="share of training in which the weights grow from 0"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("standardize"):
            return {"temperature": 2.0, "weight": 9.0, **values}
        return values

    @model_validator(mode="after")
    def _something_counts(self) -> DKDMethodOptions:
        parts = {"alpha": self.weight * self.alpha, "beta": self.weight * self.beta}
        require_some({**(parts if self.weight else {"weight": 0.0}), "hard": self.hard})
        return self


@registry.register(
    "dkd",
    "How sure the teacher is of the label, and what it says of the other classes, each with its own weight",
    paper="https://arxiv.org/abs/2203.08679",
    config=DKDMethodOptions,
)
def build(setting: Setting, options: DKDMethodOptions) -> Lessons:
    """One stage.

    A regression has no classes: `soft` is the mean squared error of the outputs, with `weight`.
    """

    def compare(student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        classes = student.shape[-1]
        if classes == 1:
            return {"soft": (options.weight, losses.logit_mse(student, teacher))}
        targets = as_classes(batch.labels.flatten(), classes)
        if options.standardize:
            student, teacher = losses.standardized(student), losses.standardized(teacher)
        target, others = decoupled(student, teacher, targets, options.temperature)
        return {
            "target": (options.weight * options.alpha, target),
            "others": (options.weight * options.beta, others),
        }

    assert setting.source is not None
    setting.require_labels(options.hard, "hard: 0")
    step = LogitStep(
        "dkd",
        setting.source,
        compare,
        hard=options.hard,
        warmup=options.warmup,
        loss=setting.loss,
    )
    return Lessons([Stage("dkd", step)])
