"""The corpus of a method that begins with general distillation: texts without labels, as the student reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from pydantic import Field

from lianzhi import files
from lianzhi.errors import RecipeError
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.corpus.assemble import CorpusReading, checked_frame, corpus_task
from lianzhi.tasks.options import Count
from lianzhi.tasks.readers import sentences


class CorpusData(CorpusReading):
    """Which corpus, and how it is read. All of it is trained on.

    >>> CorpusData(data="corpora", fill=False).masked
    0.15
    """

    data: str = Field(description="a folder of text files, or one such file; see the task 'corpus'")
    max_length: int | None = Field(
        default=None, ge=8, le=1 << 15, description="tokens; default: as the task has it"
    )
    validation: Count = Field(
        default=0, description="samples that are left out, to be those of the task 'corpus'"
    )


def corpus_later(method: str, corpus: CorpusData, task: Task) -> Callable[[], Task]:
    """What a stage has as its task: checked now, read once when the stage begins.

    Raises:
        RecipeError: the task is not of texts.
        DataError: there is no corpus, or the tokenizer has no mask.
    """
    sentences.find(files.expanded(corpus.data))
    checked_frame(_preprocess(method, task), corpus)
    return cache(lambda: read_corpus(method, corpus, task))


def read_corpus(method: str, corpus: CorpusData, task: Task) -> Task:
    """The corpus with the tokenizer of the task, its training part alone: a classifier is not validated on it.

    Raises:
        RecipeError: the task is not of texts.
        DataError: there is no corpus, or it is damaged.
    """
    preprocess = _preprocess(method, task)
    if corpus.max_length is not None:
        preprocess = replace(preprocess, max_length=corpus.max_length)
    made = corpus_task(files.expanded(corpus.data), preprocess, corpus)
    made.splits = {"train": made.splits["train"]}
    return made


def _preprocess(method: str, task: Task) -> TextPreprocess:
    if not isinstance(task.preprocess, TextPreprocess):
        raise RecipeError(f"{method}: task '{task.name}' is not of texts; leave the corpus out")
    return task.preprocess
