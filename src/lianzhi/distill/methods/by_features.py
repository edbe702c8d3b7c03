"""What the methods on features of CNNs share: which layers are compared, the step, and the terms of the loss.

    loss = hard · task's loss + soft · T² · KL of the logits + weight · loss on features

The defaults are hard 1 and soft 0, as the methods were published and are compared (1910.10699, section 4): the
features alone are the teacher. With soft 1 `kd` is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill.capture import capture
from lianzhi.distill.losses.kd import divergences
from lianzhi.distill.methods.by_logits import require_classes_last
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.learner import Learner
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import logits_of
from lianzhi.distill.methods.terms import grown, require_some, require_unset, weighted
from lianzhi.distill.methods.whole_batch import of_whole_batch
from lianzhi.distill.stage_ends import Feature, features_of, stage_ends
from lianzhi.errors import DataError, RecipeError
from lianzhi.graph import device_of, in_eval
from lianzhi.tasks import Batch
from lianzhi.train.default_step import call
from lianzhi.train.validation import move

Compare = Callable[[list[Tensor], list[Tensor], Batch], Tensor]


class FeatureOptions(Config):
    """Options that every method on features has."""

    weight: float = Field(default=1.0, ge=0, description="of the loss on features")
    hard: float = Field(default=1.0, ge=0, description="of the task's own loss")
    soft: float = Field(default=0.0, ge=0, description="of T² · KL of the logits")
    temperature: float = Field(default=4.0, gt=0, description="of the soft loss")
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of training in which the weight grows from 0"
    )
    student_layers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="modules; null: the last output of each size of maps"
    )
    teacher_layers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="modules, one for each of the student's"
    )

    @model_validator(mode="after")
    def _something_counts(self) -> FeatureOptions:
        require_some({"weight": self.weight, "hard": self.hard, "soft": self.soft})
        if not self.soft:
            require_unset(self, "is of the soft loss, whose weight 'soft' is 0", "temperature")
        return self


@dataclass(frozen=True)
class Layers:
    """The student's features and those of the teacher that they are compared with, in pairs."""

    student: list[Feature]
    teacher: list[Feature]


def choose(setting: Setting, options: FeatureOptions, which: Literal["all", "middle", "last"]) -> Layers:
    """The features to compare: the named ones, or of the stage ends all, the middle one or the last.

    Where the models have different numbers of stages, the deepest are taken, as many as both have.

    Raises:
        RecipeError: there are not as many named layers on both sides, both are one model, or logits are to be kept.
        DataError: the outputs have other classes.
        GraphError: a layer is not there, or nothing was named and a model has no maps.
    """
    outputs = _require_two_models(setting)
    if options.soft:
        require_classes_last("soft", outputs)
    setting.require_labels(options.hard, "hard: 0")
    inputs = setting.task.example_inputs
    named = options.student_layers, options.teacher_layers
    sides = []
    for model, names in zip((setting.student, setting.teacher), named, strict=True):
        found = stage_ends(model, inputs) if names is None else features_of(model, inputs, names)
        sides.append(found)
    student, teacher = sides
    count = min(len(student), len(teacher))
    wanted = {len(names) for names in named if names is not None}
    if wanted - {count}:
        one, other = (
            f"{len(found)} ({'its stages' if names is None else 'named'})"
            for found, names in zip(sides, named, strict=True)
        )
        raise RecipeError(
            f"layers to compare: of the student {one}, of the teacher {other}; "
            f"name as many in student_layers as in teacher_layers"
        )
    pairs = list(zip(student[-count:], teacher[-count:], strict=True))
    if named == (None, None):
        pairs = {"all": pairs, "middle": [pairs[count // 2]], "last": pairs[-1:]}[which]
    return Layers([one for one, _ in pairs], [other for _, other in pairs])


def lessons(
    setting: Setting,
    options: FeatureOptions,
    name: str,
    layers: Layers,
    compare: Compare,
    heads: Mapping[str, nn.Module] | None = None,
) -> Lessons:
    """One stage that trains the student, and `heads` beside it if there are any, by a loss on features.

    `compare` takes the student's features, the teacher's and the batch, and gives the loss without its weight.
    """
    step = FeatureStep(setting, options, name, layers, compare)
    return Lessons([Stage(name, step, Learner(setting.student, heads) if heads else None)])


class FeatureStep:
    """The step of the training loop. Terms are logged without and with their weight; what weighs 0 is not computed."""

    def __init__(
        self, setting: Setting, options: FeatureOptions, name: str, layers: Layers, compare: Compare
    ) -> None:
        self.setting, self.options, self.name, self.compare = setting, options, name, compare
        self.student_names = [feature.name for feature in layers.student if options.weight]
        self.teacher_names = [feature.name for feature in layers.teacher if options.weight]
        self.grown = 0.0 if options.warmup else 1.0

    def at(self, number: int, total: int) -> None:
        """Before update `number` of `total`: how much of the weight counts."""
        self.grown = grown(number, total, self.options.warmup)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        options = self.options
        student = model.student if isinstance(model, Learner) else model
        with capture(student, self.student_names) as own:
            outputs = call(student, batch.inputs)
        logits = logits_of(outputs, "student")
        parts: dict[str, tuple[float, Tensor]] = {}
        if options.hard:
            parts["hard"] = (options.hard, self.setting.loss(outputs, batch.labels))
        if options.soft or options.weight:
            wanted, theirs = self._teacher(batch, logits.device)
            if options.soft:
                rows = partial(divergences, temperature=options.temperature)
                parts["soft"] = (options.soft, mean_by_sample(rows, logits, wanted, mask_of(batch.inputs)))
            if options.weight:
                mask = mask_of(batch.inputs)
                ours = [of_tokens(own[name], mask) for name in self.student_names]
                theirs = [of_tokens(features, mask) for features in theirs]
                parts[self.name] = (self.grown * options.weight, self.compare(ours, theirs, batch))
        return weighted(parts)

    def _teacher(self, batch: Batch, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Logits and features; where only logits count, they may be known already."""
        if not self.options.weight:
            return self.setting.logits(batch, device), []
        with self.setting.running(device) as teacher, capture(teacher, self.teacher_names) as seen:
            logits = logits_of(call(teacher, batch.inputs), "teacher")
        return logits, [seen[name] for name in self.teacher_names]


def of_tokens(features: Tensor, mask: Tensor | None) -> Tensor:
    """Features (batch, tokens, width) with zeros where the mask (batch, tokens) says padding; others as they are.

    >>> of_tokens(torch.ones(1, 2, 3), torch.tensor([[1, 0]])).tolist()
    [[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]
    """
    if not counts_tokens(features, mask):
        return features
    assert mask is not None
    return features.masked_fill(~mask.bool().unsqueeze(-1), 0)


def counts_tokens(features: Tensor, mask: Tensor | None) -> bool:
    """Whether the features are of the tokens that the mask is of."""
    return mask is not None and features.shape[:-1] == mask.shape


def require_shapes(name: str, features: Sequence[Feature], *dimensions: int) -> None:
    """Refuse features that a method does not take, before anything is trained.

    Raises:
        RecipeError: a feature has another number of dimensions; it is named.
    """
    kinds = {2: "vectors (batch, width)", 4: "maps (batch, channels, height, width)"}
    for feature in features:
        if len(feature.shape) not in dimensions:
            raise RecipeError(
                f"{name} compares {' or '.join(kinds[count] for count in dimensions)}; '{feature.name}' gives "
                f"{list(feature.shape)}: name other layers, or take another method"
            )


def embedding(features: Tensor) -> Tensor:
    """One vector a sample: the mean over the positions of maps, other features as they are.

    >>> embedding(torch.ones(2, 5, 4, 4)).shape
    torch.Size([2, 5])
    """
    return features.mean((2, 3)) if features.ndim == 4 else features


def summed(compare: Callable[[Tensor, Tensor], Tensor]) -> Compare:
    """The sum of a loss over all pairs of features.

    >>> add = summed(lambda student, teacher: (student - teacher).sum())
    >>> add([torch.ones(2), torch.ones(3)], [torch.zeros(2), torch.zeros(3)], None).item()
    5.0
    """

    def compare_all(student: Sequence[Tensor], teacher: Sequence[Tensor], _: Batch) -> Tensor:
        values = [compare(one, other) for one, other in zip(student, teacher, strict=True)]
        return sum(values[1:], values[0])

    return compare_all


def related(
    compare: Callable[[Tensor, Tensor], Tensor], reduced: Callable[[Tensor], Tensor] | None = None
) -> Compare:
    """`summed`, of a loss that compares samples with one another: of the whole batch, on several processes too.

    `reduced` makes of features what is compared.
    """

    def compare_all(student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        reduce = reduced or (lambda features: features)
        values = [
            of_whole_batch(compare, batch, reduce(one), reduce(other))
            for one, other in zip(student, teacher, strict=True)
        ]
        return sum(values[1:], values[0])

    return compare_all


def _require_two_models(setting: Setting) -> Tensor:
    """Teacher and student are two models, and say the same classes. Returns what the teacher says of the example."""
    if setting.teacher is setting.student:
        raise RecipeError("teacher and student are the same model; give a copy of it as the teacher")
    if setting.source is not None and setting.source.keep is not None:
        raise RecipeError(
            "features are those of the teacher on every batch, and only its logits are kept: set cache: false, and "
            "let the teacher read what the student reads (one with a tokenizer of its own gives logits alone)"
        )
    shapes = []
    for model, who in ((setting.student, "student"), (setting.teacher, "teacher")):
        with in_eval(model), torch.no_grad():
            outputs = call(model, move(setting.task.example_inputs, device_of(model)))
        found = logits_of(outputs, who)
        shapes.append(list(found.shape))
    if shapes[0][1:] != shapes[1][1:]:
        raise DataError(
            f"the student's outputs have shape {shapes[0]} and the teacher's {shapes[1]}; "
            f"both must have the same classes in the same order"
        )
    return found
