"""BERT-of-Theseus: Xu et al. 2020 (2002.02925). A model is replaced module by module while it runs.

The teacher's blocks fall into groups. Each group has a successor, one block, that stands in for it with probability p
in a training step; the only loss is the task's own. Predecessor, embeddings, pooler and classifier are not trained.
p is 0.5, or grows as min(1, k·t + b); then the successors alone are trained for a while.

As in the authors' code, dropout is on in the predecessor's blocks and in the embeddings while successors learn, and
the classifier stays as it is to the end; a successor that was not drawn has a gradient of zeros, so that the optimizer
moves it on by its momentum. It differs in this: the two stages have a learning-rate schedule each; groups need not be
even; processes and accumulated batches share a draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lianzhi.distill.methods.block_calls import after_blocks
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.rates import draw, linear
from lianzhi.distill.methods.replacing import Stack
from lianzhi.distill.methods.successors import GroupOptions, make_stack
from lianzhi.distill.methods.terms import weighted
from lianzhi.errors import RecipeError
from lianzhi.tasks import Batch
from lianzhi.train.default_step import default_step

RATES = {"constant": 0.5, "linear": 0.3}
Rates = Callable[[int, int], Sequence[float]]
Lesson = Callable[[nn.Module, Batch], dict[str, Any]]


class TheseusOptions(GroupOptions):
    """Options of the method `theseus`."""

    schedule: Literal["constant", "linear"] = "linear"
    rate: float | None = Field(
        default=None, ge=0, le=1, description="p, or b of the linear one; default 0.5 and 0.3"
    )
    slope: float | None = Field(
        default=None, gt=0, description="k, an update; default: p is 1 when the stage ends"
    )
    tuned: Literal["successors", "classifier", "all"] = Field(
        default="successors", description="what the last stage trains: the layers; with what comes after; all"
    )


@registry.register(
    "theseus",
    "Layers of the teacher are replaced at random by fewer ones, which learn to stand in for them",
    paper="https://arxiv.org/abs/2002.02925",
    config=TheseusOptions,
)
def build(setting: Setting, options: TheseusOptions) -> Lessons:
    """Two stages, `replacing` and `finetuning`. See `make_stack` for what is refused."""
    stack = make_stack(setting, options)
    plain = default_step(setting.task, setting.training)

    def lesson(model: nn.Module, batch: Batch) -> dict[str, Any]:
        return weighted({"hard": (1.0, plain(model, batch)["loss"])})

    rate = rate_of(options)
    rates: Rates = lambda number, total: [rate(number, total)] * len(stack.places)  # noqa: E731
    return stages(setting, options, stack, lesson, Replacing(stack, lesson, rates, setting.seed))


def rate_of(options: TheseusOptions) -> Callable[[int, int], float]:
    """p at an update of so many.

    >>> rate_of(TheseusOptions(schedule="constant"))(7, 10), rate_of(TheseusOptions(slope=0.1))(7, 10)
    (0.5, 1.0)

    Raises:
        RecipeError: a slope is given for a rate that is constant.
    """
    start = RATES[options.schedule] if options.rate is None else options.rate
    if options.schedule == "linear":
        return lambda number, total: linear(number, total, start=start, slope=options.slope)
    if options.slope is not None:
        raise RecipeError("slope: a constant rate has none; leave it out, or use schedule: linear")
    return lambda number, total: start


def stages(
    setting: Setting,
    options: TheseusOptions,
    stack: Stack,
    lesson: Lesson,
    replacing: Replacing,
    prepare: Callable[[list[str]], None] | None = None,
) -> Lessons:
    """Both stages; what is left is the student with its successors. `prepare` may add notes for the report."""
    tuned = set(stack.successor)
    if options.tuned == "classifier":
        tuned |= after_blocks(stack, setting.task.example_inputs)
    elif options.tuned == "all":
        tuned = {name for name, _ in stack.trainable}

    def first() -> None:
        stack.train_only(stack.successor)
        if prepare is not None:
            prepare(notes)

    def finish() -> nn.Module:
        stack.release()
        return stack.student

    alone, notes = Alone(stack, lesson), [groups_of(stack)]
    return Lessons(
        [
            Stage("replacing", replacing, stack.student, choose=False, prepare=first),
            Stage("finetuning", alone, stack.student, prepare=lambda: stack.train_only(tuned)),
        ],
        finish=finish,
        notes=notes,
    )


def groups_of(stack: Stack) -> str:
    """Which layers of the predecessor each successor replaces, in words."""
    ends = list(itertools.accumulate(len(place.predecessor) for place in stack.places))
    starts = [1, *(end + 1 for end in ends[:-1])]
    groups = [f"{a}-{b}" if a < b else str(a) for a, b in zip(starts, ends, strict=True)]
    return f"module replacement: {len(groups)} layers take the place of layers {', '.join(groups)}"


class Alone:
    """A step of the successors alone: p = 1."""

    def __init__(self, stack: Stack, lesson: Lesson) -> None:
        self.stack, self.lesson = stack, lesson

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        self.stack.hold()
        return self.lesson(model, batch)


class Replacing:
    """A step in which each module is the predecessor's or the successor, at random.

    `rates` gives the probability of each module's successor at an update. Logged beside the loss are `rate`, their
    mean, and `replaced`, the share of modules that were replaced. With `by_sample` each sample has its own draw.
    """

    def __init__(
        self, stack: Stack, lesson: Lesson, rates: Rates, seed: int, *, by_sample: bool = False
    ) -> None:
        self.stack, self.lesson, self.rates = stack, lesson, rates
        self.seed, self.by_sample = seed, by_sample
        self.at(0, 1)

    def at(self, number: int, total: int) -> None:
        """Before update `number` of `total`: how likely each module is replaced."""
        self.number, self.now = number, list(self.rates(number, total))

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        chosen = draw(self.seed, self.number, self.now, batch.ids if self.by_sample else None)
        self.stack.hold()
        self.stack.start_gradients(chosen)
        with self.stack.replaced(chosen):
            result = self.lesson(model, batch)
        shares = [float(one.double().mean()) if isinstance(one, Tensor) else float(one) for one in chosen]
        result["terms"] |= {
            "rate": sum(self.now) / len(self.now),
            "replaced": sum(shares) / len(shares),
        }
        if not result["loss"].requires_grad:  # nothing was replaced: the gradients are all zeros
            result["loss"] = result["loss"] + torch.zeros(
                (), device=result["loss"].device, requires_grad=True
            )
        return result
