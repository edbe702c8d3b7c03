"""Distillation by logits: Hinton, Vinyals and Dean 2015 (1503.02531), for any teacher and student of one task.

    loss = alpha · T² · KL + (1 - alpha) · the task's loss

With `standardize`, the z-scores of the logits are compared (Sun et al. 2024, 2403.01427). Their gradient is smaller, and
the authors weigh them more: weight · T² · KL + the task's loss, with weight 9 and T 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.by_logits import LogitStep
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import Logits


class KDMethodOptions(Config):
    """Options of the method `kd`.

    >>> KDMethodOptions().to_dict()
    {'temperature': 4.0, 'alpha': 0.9, 'standardize': False, 'weight': None}
    >>> KDMethodOptions(standardize=True).to_dict()
    {'temperature': 2.0, 'alpha': None, 'standardize': True, 'weight': 9.0}
    """

    temperature: float = Field(default=4.0, gt=0, description="with standardize 2")
    alpha: float | None = Field(
        default=0.9, ge=0, le=1, description="weight of the soft loss, 1 - alpha that of the task's"
    )
    standardize: bool = Field(default=False, description="compare z-scores of the logits")
    weight: float | None = Field(
        default=None, ge=0, description="of the soft loss, beside 1 of the task's; in place of alpha"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("standardize"):
            values.setdefault("temperature", 2.0)
            if values.get("alpha") is None and values.get("weight") is None:
                values["weight"] = 9.0
        if values.get("weight") is not None:
            values.setdefault("alpha", None)
        return values

    @model_validator(mode="after")
    def _one_weight(self) -> KDMethodOptions:
        if (self.alpha is None) == (self.weight is None):
            raise ValueError("give one of 'alpha' and 'weight'")
        return self

    @property
    def weights(self) -> tuple[float, float]:
        """Of the soft loss, and of the task's."""
        if self.weight is not None:
            return self.weight, 1.0
        assert self.alpha is not None
        return self.alpha, 1 - self.alpha


@registry.register(
    "kd",
    "The student learns the teacher's softened class probabilities, and the labels",
    paper="https://arxiv.org/abs/1503.02531",
    config=KDMethodOptions,
)
def build(setting: Setting, options: KDMethodOptions) -> Lessons:
    """One stage. See `make_step`."""
    assert setting.source is not None
    setting.require_labels(options.weights[1], "alpha: 1")
    step = make_step(setting.source, loss=setting.loss, **options.to_dict())
    return Lessons([Stage("kd", step)])


def make_step(
    teacher: nn.Module | Logits,
    *,
    temperature: float | None = None,
    alpha: float | None = None,
    standardize: bool = False,
    weight: float | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> LogitStep:
    """Make the step that the training loop runs: alpha · T² · KL + (1 - alpha) · loss.

    >>> import torch
    >>> from lianzhi.tasks import Batch
    >>> step = make_step(nn.Linear(4, 3), temperature=2.0)
    >>> batch = Batch(torch.ones(2, 4), torch.tensor([0, 2]), torch.arange(2), 2)
    >>> sorted(step(nn.Linear(4, 3), batch)["terms"])
    ['hard', 'hard_weighted', 'soft', 'soft_weighted']

    The options' defaults are those of `KDMethodOptions`. `loss(outputs, labels)` is the task's own, the mean over
    samples; cross entropy by default (mean squared error for one output). The teacher runs in eval mode and without
    gradients, is no part of the student, and keeps its modes; one that is in eval mode already costs no switching.
    `Logits` may know its outputs already. Terms are logged without and with their weight.

    Raises:
        RecipeError: temperature, alpha or weight is out of range.
        DataError: in the first step, before anything is updated: teacher and student do not have the same outputs.
    """
    values: dict[str, Any] = {
        "temperature": temperature,
        "alpha": alpha,
        "standardize": standardize,
        "weight": weight,
    }
    options = KDMethodOptions(**{name: value for name, value in values.items() if value is not None})
    soft, hard = options.weights

    rows = partial(divergences, temperature=options.temperature, standardize=options.standardize)

    def by_token(student: Tensor, teacher: Tensor, mask: Tensor | None) -> dict[str, tuple[float, Tensor]]:
        return {"soft": (soft, mean_by_sample(rows, student, teacher, mask))}

    def compare(student: Tensor, teacher: Tensor, _: Any) -> dict[str, tuple[float, Tensor]]:
        return by_token(student, teacher, None)

    return LogitStep("kd", teacher, compare, hard=hard, loss=loss, by_token=by_token)
