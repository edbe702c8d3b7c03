"""TinyBERT: Jiao et al. 2020 (1909.10351).

    general       embedding + hidden + attention, on a corpus; the teacher is the pre-trained model
    intermediate  the same on the task's texts, augmented or not; the teacher is the one trained for the task
    prediction    cross entropy with the teacher's probabilities, T 1

    embedding + hidden + attention = MSE(E_s·W, E_t) + Σ over layers of MSE(H_s·W, H_t) + MSE(A_s, A_t)

A are attention scores before the softmax, layer m learns from ⌈m·L/M⌉. W makes the student's width the teacher's; as
in the authors' code one W serves all layers. It is trained with the student and dropped at the end. Sums are over
layers; means leave padding out, where the authors' code counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.augmentation.tinybert import TinyBertAugmentation, augment, require_sources
from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.lengths import fitting
from lianzhi.distill.losses.soft_cross_entropy import cross_entropies
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.corpora import CorpusData, corpus_later
from lianzhi.distill.methods.each_sample import mean_by_sample
from lianzhi.distill.methods.encoders import (
    Both,
    Pairs,
    check_both,
    check_heads,
    depths,
    modules_of,
    run_both,
)
from lianzhi.distill.methods.learner import Learner
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.terms import require_some, require_unset, weighted
from lianzhi.errors import DataError, RecipeError
from lianzhi.models import model as zoo_model
from lianzhi.processes import leader_first
from lianzhi.tasks import Batch, Task
from lianzhi.tasks.same_tokens import require_same_vocabulary
from lianzhi.tasks.texts import Texts, texts_of, with_train
from lianzhi.train import Step


class GeneralOptions(CorpusData):
    """The stage `general`: a corpus, and whose layers are learned."""

    teacher: str | None = Field(
        default=None,
        description="the pre-trained model: a Hugging Face folder, package:NAME/folder, or a name on the hub "
        "(default: the teacher of the task)",
    )


class TinyBertOptions(Config):
    """Options of the method `tinybert`."""

    general: GeneralOptions | None = Field(default=None, description="general distillation on a corpus first")
    augmentation: TinyBertAugmentation | None = Field(
        default=None, description="more texts of the task; it labels them by the teacher alone"
    )
    map: str | list[int] | list[tuple[int, int]] = Field(
        default="uniform", description="uniform, top, bottom; the teacher's layers for 1, 2, …; or pairs"
    )
    joint: bool = Field(default=False, description="intermediate and prediction as one stage, `joint`")
    embedding: float = Field(default=1.0, ge=0, description="weight of the embeddings")
    hidden: float = Field(default=1.0, ge=0, description="weight of the hidden states")
    attention: float = Field(
        default=1.0, ge=0, description="weight of the attention scores; above 0 both have as many heads"
    )
    prediction: float = Field(default=1.0, ge=0, description="weight of the prediction in the stage `joint`")
    temperature: float = Field(default=1.0, gt=0, description="of the prediction")
    projection: Literal["shared", "by_layer", "none"] = Field(
        default="shared", description="one for all layers, one a layer, or none (equal widths)"
    )

    @model_validator(mode="after")
    def _each_stage_learns(self) -> TinyBertOptions:
        features = {"embedding": self.embedding, "hidden": self.hidden, "attention": self.attention}
        if self.joint and self.general is None:
            features["prediction"] = self.prediction
        require_some(features)
        if not self.joint:
            require_unset(self, "is of one stage for both, and 'joint' is false", "prediction")
        return self


@dataclass(frozen=True)
class _Looks:
    """The modules that are compared, as (student, teacher): embeddings, if they are, and layers."""

    embeddings: Pairs
    layers: Pairs
    attention: Pairs

    @property
    def hidden(self) -> Pairs:
        """All whose outputs are noted."""
        return [*self.embeddings, *self.layers]


@registry.register(
    "tinybert",
    "Embeddings, hidden states and attention scores of the teacher, then its probabilities",
    paper="https://arxiv.org/abs/1909.10351",
    config=TinyBertOptions,
)
def build(setting: Setting, options: TinyBertOptions) -> Lessons:
    """Up to three stages: `general`, `intermediate`, `prediction`; or `joint` for the last two.

    >>> TinyBertOptions(augmentation={"words": "vectors", "vectors": "glove.txt"}).augmentation.copies
    20

    Raises:
        RecipeError: the map does not fit the depths, heads differ, or teacher and student are one model.
        DataError: other classes, vocabularies or widths; the corpus or the vectors are not there.
        ArtifactError: there is no such masked LM.
        GraphError: a model has no list of like layers, or no attention that can be read.
    """
    if options.augmentation is not None:
        require_sources(options.augmentation)
    if setting.training.label_smoothing:
        raise RecipeError("label_smoothing: tinybert reads no labels; leave it out")
    looks, both = _compared(setting, options, same_outputs=True)
    learner = Learner(setting.student, _projections(looks, both, options))
    found = _require_widths(learner, both, looks, options)
    if not (options.joint and options.prediction):
        _require_some(found, options)
    stages: list[Stage] = []
    notes: list[str] = []
    if options.general is not None:
        stages.append(_general(setting, options, options.general, learner, notes))
    task = _texts(setting, options.augmentation, notes)
    if options.joint:
        stages.append(Stage("joint", _joint_step(setting, options, looks), learner, task))
    else:
        stages.append(Stage("intermediate", _step(setting, options, looks), learner, task, choose=False))
        stages.append(Stage("prediction", _prediction_step(setting, options), task=task))
    return Lessons(stages, notes=notes)


def _compared(setting: Setting, options: TinyBertOptions, *, same_outputs: bool) -> tuple[_Looks, Both]:
    """What is compared, and what both give for the task's example."""
    layers = LayerMap.named(options.map, *depths(setting))
    inner = tuple(pair for pair in layers.pairs if pair != (0, 0))
    first = modules_of(setting, replace(layers, pairs=((0, 0),))) if options.embedding else []
    pairs = modules_of(setting, replace(layers, pairs=inner)) if inner else []
    looks = _Looks(first, pairs, pairs if options.attention else [])
    check_heads(setting, "tinybert", looks.attention)
    both = check_both(
        setting, "tinybert", hidden=looks.hidden, attention=looks.attention, same_outputs=same_outputs
    )
    return looks, both


def _projections(looks: _Looks, both: Both, options: TinyBertOptions) -> dict[str, nn.Module]:
    """Linear modules from the student's width to the teacher's, by name."""
    if options.projection == "none" or not looks.hidden:
        return {}
    one, other = looks.hidden[0]
    student = both.student[one]
    widths = student.shape[-1], both.teacher[other].shape[-1]
    if options.projection == "shared":
        return {"projection": nn.Linear(*widths, dtype=student.dtype)}
    return {_own_name(pair): nn.Linear(*widths, dtype=student.dtype) for pair in looks.hidden}


def _require_widths(
    learner: Learner, both: Both, looks: _Looks, options: TinyBertOptions
) -> dict[str, tuple[float, Tensor]]:
    """The losses on the example; `DataError` where widths do not go together."""
    with torch.no_grad():
        return _features(learner, both, looks, options)


def _require_some(found: dict[str, tuple[float, Tensor]], options: TinyBertOptions) -> None:
    """Raise `RecipeError` where the map's pairs have only what weighs nothing: the embeddings' pair, say."""
    if not any(weight for weight, _ in found.values()):
        raise RecipeError(
            f"tinybert: nothing is compared of the pairs of layers {options.map} with embedding: {options.embedding:g}, "
            f"hidden: {options.hidden:g} and attention: {options.attention:g}; give other pairs, or a weight above 0"
        )


def _own_name(pair: tuple[str, str]) -> str:
    """The name of a layer's own projection; a module's name has no dots."""
    return pair[0].replace(".", "_")


def _features(
    model: nn.Module, both: Both, looks: _Looks, options: TinyBertOptions
) -> dict[str, tuple[float, Tensor]]:
    """Embedding, hidden and attention losses, with their weights, each a sum over its layers."""
    assert isinstance(model, Learner)
    rest: dict[str, Any] = {"mask": both.mask, "by_sample": True}

    def through(pair: tuple[str, str]) -> Callable[[Tensor], Tensor] | None:
        if options.projection == "none":
            return None
        return model.heads["projection" if options.projection == "shared" else _own_name(pair)]

    parts: dict[str, tuple[float, Tensor]] = {}
    for name, weight, pairs in (
        ("embedding", options.embedding, looks.embeddings),
        ("hidden", options.hidden, looks.layers),
    ):
        if weight and pairs:
            found = [
                losses.hidden_mse(
                    both.student[pair[0]], both.teacher[pair[1]], projection=through(pair), **rest
                )
                for pair in pairs
            ]
            parts[name] = (weight, torch.stack(found).sum())
    if looks.attention:
        scores = [
            losses.attention_mse(both.student.scores(one), both.teacher.scores(other), **rest)
            for one, other in looks.attention
        ]
        parts["attention"] = (options.attention, torch.stack(scores).sum())
    return parts


def _step(setting: Setting, options: TinyBertOptions, looks: _Looks) -> Step:
    """Features alone."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        both = run_both(setting, batch.inputs, hidden=looks.hidden, attention=looks.attention)
        return weighted(_features(model, both, looks, options))

    return step


def _joint_step(setting: Setting, options: TinyBertOptions, looks: _Looks) -> Step:
    """Features and prediction."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        both = run_both(setting, batch.inputs, hidden=looks.hidden, attention=looks.attention)
        soft = _prediction(both, options)
        return weighted({**_features(model, both, looks, options), "prediction": (options.prediction, soft)})

    return step


def _prediction_step(setting: Setting, options: TinyBertOptions) -> Step:
    """The teacher's probabilities alone."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        return weighted({"prediction": (1.0, _prediction(run_both(setting, batch.inputs), options))})

    return step


def _prediction(both: Both, options: TinyBertOptions) -> Tensor:
    """The cross entropy with the teacher's probabilities."""
    rows = partial(cross_entropies, temperature=options.temperature)
    return mean_by_sample(rows, *both.logits, both.mask)


def _general(
    setting: Setting, options: TinyBertOptions, general: GeneralOptions, learner: Learner, notes: list[str]
) -> Stage:
    """The first stage: its own teacher, and a corpus that is read when the stage begins."""
    if general.teacher is not None:
        require_same_vocabulary(setting.task, general.teacher, "general.teacher")
        teacher = zoo_model("huggingface", path=general.teacher).eval()
        setting = replace(setting, teacher=teacher, source=None)
    task = corpus_later("tinybert", general, setting, notes)
    if general.teacher is not None:
        setting = replace(setting, task=fitting(setting.task, setting.teacher))
    looks, both = _compared(setting, options, same_outputs=False)
    _require_some(_require_widths(learner, both, looks, options), options)
    return Stage("general", _step(setting, options, looks), learner, task, choose=False)


def _texts(
    setting: Setting, options: TinyBertAugmentation | None, notes: list[str]
) -> Callable[[], Task] | None:
    """The task with the augmented training texts, made when the first stage needs it, which adds to the `notes`."""
    if options is None:
        return None
    texts_of(setting.task, "train")
    task = fitting(setting.task, setting.student, setting.teacher)

    @cache
    def made() -> Task:
        given = texts_of(task, "train")
        with leader_first():
            more = augment(
                given.texts,
                given.pairs,
                options,
                seed=setting.seed,
                progress=setting.progress,
                device=setting.device,
            )
        texts = with_train(task, more.texts, more.pairs, given.labels[more.origins])
        notes.append(_count(given, texts_of(texts, "train"), options))
        notes.extend(note for note in texts.notes if note not in setting.task.notes)
        return texts

    return made


def _count(given: Texts, left: Texts, options: TinyBertAugmentation) -> str:
    """How many texts were made; raises `DataError` where none was."""
    old = set(_sides(given))
    made = sum(pair not in old for pair in _sides(left))
    if not made:
        sources = {"masked_lm": options.masked_lm, "vectors": options.vectors}
        asked = " and ".join(
            f"{name}: {place}" for name, place in sources.items() if options.words in ("both", name)
        )
        raise DataError(
            f"tinybert: augmentation made no text of {len(given):,}: of words that are no stop-words none was replaced by "
            f"one of {asked}; give one of the texts' language, more copies or probability, or leave augmentation out"
        )
    return f"{made:,} texts were made of {len(given):,} by replacing words"


def _sides(texts: Texts) -> Iterator[tuple[str, str]]:
    return zip(texts.texts, texts.pairs or [""] * len(texts), strict=True)
