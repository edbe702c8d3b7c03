"""Distillation by logits: Hinton, Vinyals and Dean 2015 (1503.02531), for any teacher and student of one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill.losses.kd import hard_loss, soft_loss
from lianzhi.distill.losses.parts import require_same_shape, valid
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import Logits, logits_of
from lianzhi.errors import RecipeError
from lianzhi.tasks import Batch
from lianzhi.train.default_step import Step, call


class KDMethodOptions(Config):
    """Options of the method `kd`."""

    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)


@registry.register(
    "kd",
    "The student learns the teacher's softened class probabilities, and the labels",
    paper="https://arxiv.org/abs/1503.02531",
    config=KDMethodOptions,
)
def build(setting: Setting, options: KDMethodOptions) -> Lessons:
    """One stage. See `make_step`."""
    assert setting.source is not None
    step = make_step(setting.source, loss=setting.task.loss, **options.to_dict())
    return Lessons([Stage("kd", step)])


def make_step(
    teacher: nn.Module | Logits,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Step:
    """Make the step that the training loop runs: alpha · T² · KL + (1 - alpha) · loss.

    >>> import torch
    >>> from lianzhi.tasks import Batch
    >>> step = make_step(nn.Linear(4, 3), temperature=2.0)
    >>> batch = Batch(torch.ones(2, 4), torch.tensor([0, 2]), torch.arange(2), 2)
    >>> sorted(step(nn.Linear(4, 3), batch)["terms"])
    ['hard', 'hard_weighted', 'soft', 'soft_weighted']

    `loss(outputs, labels)` is the task's own, the mean over samples; cross entropy by default (mean squared error
    for one output). The teacher runs in eval mode and without gradients, is no part of the student, and keeps its
    modes; one that is in eval mode already costs no switching. `Logits` may know its outputs already. Terms are logged without and with their weight.

    Raises:
        RecipeError: temperature or alpha is out of range.
        DataError: in the first step, before anything is updated: teacher and student do not have the same outputs.
    """
    if teacher is None:
        raise RecipeError("kd needs a teacher: a trained model with the same classes as the student")
    options = KDMethodOptions(temperature=temperature, alpha=alpha)
    source = teacher if isinstance(teacher, Logits) else Logits(teacher)
    teacher = source.teacher

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        if model is teacher:
            raise RecipeError("teacher and student are the same model; give a copy of it as the teacher")
        outputs = call(model, batch.inputs)
        student = logits_of(outputs, "student")
        wanted = source(batch, student.device)
        require_same_shape(student, wanted)
        samples, targets, labels = valid(student, wanted, None if loss else batch.labels, None)
        soft = soft_loss(samples, targets, options.temperature)
        if loss is not None:
            hard = loss(outputs, batch.labels)
        else:
            assert labels is not None
            hard = hard_loss(samples, labels)
        weighted_soft, weighted_hard = options.alpha * soft, (1 - options.alpha) * hard
        terms = {
            "soft": soft,
            "soft_weighted": weighted_soft,
            "hard": hard,
            "hard_weighted": weighted_hard,
        }
        return {
            "loss": weighted_soft + weighted_hard,
            "terms": {name: value.detach() for name, value in terms.items()},
        }

    return step
