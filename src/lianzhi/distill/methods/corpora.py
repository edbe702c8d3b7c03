"""The corpus of a method that begins with general distillation: texts without labels, as the student reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pydantic import Field

from lianzhi import files
from lianzhi.distill.lengths import fitted
from lianzhi.distill.methods.lesson import Setting
from lianzhi.errors import RecipeError
from lianzhi.processes import leader_first
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.corpus.assemble import CorpusReading, checked_frame, corpus_task
from lianzhi.tasks.corpus.split import CorpusSplit
from lianzhi.tasks.options import Count
from lianzhi.tasks.readers import sentences


class CorpusData(CorpusReading):
    """Which corpus, and how it is read. All of it is trained on.

    >>> CorpusData(data="corpora", fill=False).masked
    0.15
    """

    data: str = Field(description="a folder of text files, or one such file; see the task 'corpus'")
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=1 << 15,
        description="tokens, no more than both models have positions for; default: as the task has it",
    )
    validation: Count = Field(
        default=0, description="samples that are left out, to be those of the task 'corpus'"
    )


def corpus_later(method: str, corpus: CorpusData, setting: Setting, notes: list[str]) -> Callable[[], Task]:
    """What a stage has as its task: checked now, read once when the stage begins, which adds to the lessons' `notes`.

    Its texts are no longer than what teacher and student run on.

    Raises:
        RecipeError: the task is not of texts.
        DataError: there is no corpus, or the tokenizer has no mask.
    """
    sentences.find(files.expanded(corpus.data))
    preprocess = fitted(setting.task, setting.student, setting.teacher, longest=corpus.max_length)
    if preprocess is None:
        raise RecipeError(f"{method}: task '{setting.task.name}' is not of texts; leave the corpus out")
    checked_frame(preprocess, corpus)

    @cache
    def made() -> Task:
        task = read_corpus(corpus, preprocess)
        notes.extend(_cut_notes(setting.task, corpus, task))
        return task

    return made


def read_corpus(corpus: CorpusData, preprocess: TextPreprocess) -> Task:
    """The corpus as tokens, its training part alone: a classifier is not validated on it.

    Raises:
        DataError: there is no corpus, or it is damaged.
    """
    with leader_first():
        made = corpus_task(files.expanded(corpus.data), preprocess, corpus)
    made.splits = {"train": made.splits["train"]}
    return made


def _cut_notes(task: Task, corpus: CorpusData, made: Task) -> list[str]:
    """That the models have positions for fewer tokens than were asked for, and how many texts are cut."""
    split = made.splits["train"]
    assert isinstance(split, CorpusSplit)
    assert isinstance(task.preprocess, TextPreprocess)
    longest, asked = split.preprocess.max_length, corpus.max_length or task.preprocess.max_length
    cut = int((split.lengths > longest).sum())
    fewer = (
        f"texts of the corpus have at most {longest} tokens, not {asked}: a model has no positions for more"
    )
    long = f"{cut:,} of {split.size:,} texts of the corpus are longer than {longest} tokens and were cut"
    return [*([fewer] if longest < asked else []), *([long] if cut else [])]
