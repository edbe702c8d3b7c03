"""Any loss on logits by its name, those of installed packages included, beside the task's own.

    loss = weight · the named loss(student's logits, teacher's logits) + hard · the task's loss

So a recipe tries a loss that has no method of its own (`reverse_kl`, `jsd`, `soft_cross_entropy`, …), or a new one. A
loss that needs labels (`dkd`) gets them; to others they are not given, so that `kd` is its soft part alone. To a loss of
language models the samples are the tokens of one text, each with its own answer (no shift). On several processes the loss is of
the whole batch: it may compare samples with one another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.methods.by_logits import LogitStep
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some
from lianzhi.distill.methods.whole_batch import of_whole_batch
from lianzhi.errors import RecipeError
from lianzhi.registry import Entry
from lianzhi.tasks import Batch

TAKES = ["student_logits", "teacher_logits"]


class LogitLossOptions(Config):
    """Options of the method `logit_loss`.

    >>> LogitLossOptions(loss="jsd", loss_options={"beta": 0.1}).weight
    1.0
    """

    loss: str = Field(default="soft_cross_entropy", description="a name of `lianzhi list losses`, on logits")
    loss_options: dict[str, Any] = Field(default_factory=dict, description="of that loss")
    weight: float = Field(default=1.0, ge=0, description="of that loss")
    hard: float = Field(default=1.0, ge=0, description="of the task's loss")

    @model_validator(mode="after")
    def _something_counts(self) -> LogitLossOptions:
        require_some({"weight": self.weight, "hard": self.hard})
        return self


@registry.register(
    "logit_loss",
    "What a loss on logits says that is given by name, one of a package of yours too, and the labels",
    config=LogitLossOptions,
)
def build(setting: Setting, options: LogitLossOptions) -> Lessons:
    """One stage. Raises `RecipeError` for a loss that is not there, is not on logits, or has no such option."""
    entry = losses.registry.get(options.loss)
    parameters = inspect.signature(entry.build).parameters
    if list(parameters)[:2] != TAKES:
        raise RecipeError(
            f"loss '{options.loss}' is not on logits: it takes {', '.join(list(parameters)[:2])}; of those that "
            f"take {' and '.join(TAKES)} there are {', '.join(on_logits())}"
        )
    loss = with_options(entry, options.loss_options)
    labelled = "labels" in parameters and parameters["labels"].default is inspect.Parameter.empty

    def compare(student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        more = [batch.labels.flatten()] if labelled else []
        return {options.loss: (options.weight, of_whole_batch(loss, batch, student, teacher, *more))}

    assert setting.source is not None
    setting.require_labels(options.hard, "hard: 0")
    step = LogitStep("logit_loss", setting.source, compare, hard=options.hard, loss=setting.loss)
    return Lessons([Stage("logit_loss", step)])


def with_options(entry: Entry, options: dict[str, Any]) -> Callable[..., Tensor]:
    """A loss with its options filled in and checked, as a function of logits (samples, classes).

    >>> import torch
    >>> loss = with_options(losses.registry.get("kd"), {"alpha": 1.0})
    >>> loss(torch.ones(2, 3), torch.ones(2, 3)).item()
    0.0
    """
    checked = entry.options(**options).model_dump()
    if "shift" not in inspect.signature(entry.build).parameters:
        return lambda *inputs: entry.build(*inputs, **checked)
    checked["shift"] = False
    return lambda *inputs: entry.build(*(tensor[None] for tensor in inputs), **checked)


def on_logits() -> list[str]:
    """The names of all losses on logits.

    >>> "jsd" in on_logits(), "rkd" in on_logits()
    (True, False)
    """
    entries = [losses.registry.get(name) for name in losses.registry.names()]
    return [entry.name for entry in entries if list(inspect.signature(entry.build).parameters)[:2] == TAKES]
