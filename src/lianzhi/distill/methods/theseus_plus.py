"""Theseus with denser lessons: an improvement of BERT-of-Theseus (2002.02925) that is this project's own.

    loss = (1 − alpha) · task's loss + alpha · T² · KL of the logits + hidden · MSE at the modules' ends

In BERT-of-Theseus a module learns from the labels alone, and in half of the updates it does not run at all. Here

- each sample of a batch draws its own modules (`replace: sample`), so that nearly every successor learns in every update;
- modules are replaced in an order, the first ones ahead (`order`, `spread`): from the top, from the bottom, or by how
  much the model's answers change when a module alone is replaced;
- the teacher's probabilities, and its hidden state at the end of every module, are targets (`alpha`, `hidden`);
- the last stage trains what comes after the layers too (`tuned: classifier`).

Each is an option. With `replace: batch, order: together, alpha: 0, hidden: 0, tuned: successors` it is `theseus`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lianzhi.distill import losses
from lianzhi.distill.capture import capture
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.block_calls import note_shared
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.difficulty import difficulty
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.lesson import Lessons, Setting
from lianzhi.distill.methods.rates import spread
from lianzhi.distill.methods.replacing import Stack
from lianzhi.distill.methods.successors import make_stack
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.distill.methods.terms import weighted
from lianzhi.distill.methods.theseus import Lesson, Replacing, TheseusOptions, rate_of, stages
from lianzhi.tasks import Batch
from lianzhi.train.default_step import call

Order = Literal["together", "top", "bottom", "easiest", "hardest"]


class TheseusPlusOptions(TheseusOptions):
    """Options of the method `theseus_plus`."""

    replace: Literal["sample", "batch"] = Field(
        default="sample", description="whether each sample draws its own modules, or a batch"
    )
    order: Order = Field(
        default="top", description="which modules are ahead; the easiest and hardest ones are measured"
    )
    spread: float = Field(
        default=0.5, ge=0, le=1, description="how far ahead: 0 is not at all, 1 one after another"
    )
    measured: int = Field(default=256, ge=1, description="samples by which easiest and hardest are found")
    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the teacher's probabilities")
    temperature: float = Field(default=2.0, gt=0)
    hidden: float = Field(default=1.0, ge=0, description="weight of the hidden states at the modules' ends")
    tuned: Literal["successors", "classifier", "all"] = Field(
        default="classifier", description="what the last stage trains: the layers; with what comes after; all"
    )


@registry.register(
    "theseus_plus",
    "theseus by samples, in an order, with the teacher's probabilities and hidden states; our own",
    config=TheseusPlusOptions,
)
def build(setting: Setting, options: TheseusPlusOptions) -> Lessons:
    """Two stages, `replacing` and `finetuning`. See `make_stack` for what is refused."""
    setting.require_labels(1 - options.alpha, "alpha: 1")
    stack = make_stack(setting, options)
    if options.replace == "sample":
        note_shared(stack, setting.task.example_inputs)
    lesson = make_lesson(setting, stack, options)
    ahead = Ahead(rate_of(options), len(stack.places), options)
    replacing = Replacing(stack, lesson, ahead, setting.seed, by_sample=options.replace == "sample")

    def prepare(notes: list[str]) -> None:
        if options.order in ("easiest", "hardest"):
            values = difficulty(stack, setting.task, options.measured)
            ahead.measured(values)
            turns = ", ".join(f"{place + 1} (KL {values[place]:.3g})" for place in ahead.order)
            notes.append(f"module replacement: the order by measured difficulty is {turns}")

    return stages(setting, options, stack, lesson, replacing, prepare)


class Ahead:
    """The rates of modules that are replaced in an order.

    >>> ahead = Ahead(lambda number, total: 0.5, 2, TheseusPlusOptions(spread=1.0))
    >>> ahead(0, 10)
    [0.0, 1.0]
    """

    def __init__(self, rate: Callable[[int, int], float], modules: int, options: TheseusPlusOptions) -> None:
        self.rate, self.options = rate, options
        self.order = list(range(modules))
        if options.order == "top":
            self.order.reverse()

    def measured(self, values: Sequence[float]) -> None:
        """Take the order from the modules' difficulty."""
        self.order = sorted(
            range(len(values)), key=values.__getitem__, reverse=self.options.order == "hardest"
        )

    def __call__(self, number: int, total: int) -> list[float]:
        share = 0.0 if self.options.order == "together" else self.options.spread
        return spread(self.rate(number, total), self.order, share)


def make_lesson(setting: Setting, stack: Stack, options: TheseusPlusOptions) -> Lesson:
    """The loss, whatever runs. What weighs nothing is not computed."""
    names = stack.names if options.hidden else []

    def lesson(model: nn.Module, batch: Batch) -> dict[str, Any]:
        with capture(model, names) as seen:
            outputs = call(model, batch.inputs)
        logits = logits_of(outputs, "student")
        parts = {"hard": (1 - options.alpha, setting.loss(outputs, batch.labels))}
        if options.alpha or options.hidden:
            wanted, states = _teacher(setting, stack, batch, logits.device, bool(options.hidden))
            mask = mask_of(batch.inputs)
            if options.alpha:
                rows = partial(divergences, temperature=options.temperature)
                parts["soft"] = (options.alpha, mean_by_sample(rows, logits, wanted, mask))
            if options.hidden:
                values = [
                    losses.hidden_mse(seen[name], state, mask=mask, by_sample=True)
                    for name, state in zip(names, states, strict=True)
                ]
                parts["hidden"] = (options.hidden, torch.stack(values).mean())
        return weighted(parts)

    return lesson


def _teacher(
    setting: Setting, stack: Stack, batch: Batch, device: torch.device, hidden: bool
) -> tuple[Tensor, list[Tensor]]:
    """The teacher's logits, and its hidden state at the end of each group."""
    ends = stack.ends if hidden else []
    with setting.running(device) as teacher, capture(teacher, ends) as seen:
        wanted = logits_of(call(teacher, batch.inputs), "teacher")
    return wanted, [seen[name] for name in ends]
