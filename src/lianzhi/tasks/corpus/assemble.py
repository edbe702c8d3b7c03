"""How a corpus is read, and the task that is made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lianzhi.config import Config
from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.corpus import objective as asking
from lianzhi.tasks.corpus.focus import asked_only
from lianzhi.tasks.corpus.frame import Frame, frame_of
from lianzhi.tasks.corpus.samples import samples
from lianzhi.tasks.corpus.split import CorpusSplit, Objective
from lianzhi.tasks.corpus.store import open_corpus
from lianzhi.tasks.cuts import limited, partition
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.options import Count
from lianzhi.tasks.readers import sentences
from lianzhi.tasks.text_preprocess import TextPreprocess


class CorpusReading(Config):
    """How samples are made of a corpus, and what is asked of them."""

    fill: bool = Field(
        default=True, description="as many sentences of a document as fit, not one, make a sample"
    )
    masked: float = Field(
        default=0.15, ge=0, lt=1, description="share of the tokens that are asked for; 0: whole texts"
    )
    whole_words: bool = Field(default=True, description="mask all pieces of a word, or none")
    next_sentence: bool = Field(
        default=False, description="pairs of texts, and the question whether the second follows the first"
    )
    bucket: bool = Field(default=True, description="train on batches of texts of like length")
    validation: Count = Field(default=0.05, description="samples cut from the corpus to choose by")
    calibration: Count = Field(default=0, description="samples cut from the corpus to calibrate quantizers")
    split_seed: int = Field(default=0, description="another seed is another cut")
    limit: int | None = Field(default=None, ge=1, description="use at most so many samples of each split")
    workers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="threads that tokenize; default: the tokenizer's own, one for each core",
    )


def corpus_task(place: Path, preprocess: TextPreprocess, options: CorpusReading) -> Task:
    """The task of the corpus in a folder, or in one file, as `preprocess` gives it to a model.

    Raises:
        DataError: there is no corpus, it is damaged, or the tokenizer has no mask.
    """
    files = sentences.find(place)
    frame = checked_frame(preprocess, options)
    splits, count = _splits(files, preprocess, frame, options)
    metrics: dict[str, Metric] = {"masked_accuracy": asking.masked_accuracy}
    if options.next_sentence:
        metrics["next_accuracy"] = asking.next_accuracy
    return Task(
        *(splits.get(split) for split in ("train", "validation", "calibration")),
        loss=asking.corpus_loss,
        metrics=metrics,
        condense=asking.condensed,
        focus=asked_only,
        name="corpus",
        preprocess=preprocess,
        source=str(place),
        notes=(f"{count:,} sentences of {len(files):,} files",),
    )


def checked_frame(preprocess: TextPreprocess, options: CorpusReading) -> Frame:
    """What the tokenizer puts around texts; raises `DataError` where words are masked and it has no mask."""
    frame = frame_of(preprocess)
    if options.masked and frame.mask is None:
        raise DataError("task 'corpus': the tokenizer has no mask token; give another, or masked: 0")
    return frame


def _splits(
    files: list[Path], preprocess: TextPreprocess, frame: Frame, options: CorpusReading
) -> tuple[dict[str, CorpusSplit], int]:
    """The splits, and how many sentences the corpus has."""
    store = open_corpus(files, preprocess, options.workers)
    around = frame.around_two if options.next_sentence else frame.around
    least = 2 if options.next_sentence else 1
    everything = samples(store, preprocess.max_length - around, fill=options.fill, least=least)
    counts = {"validation": options.validation, "calibration": options.calibration}
    rows = partition(
        np.zeros(len(everything), np.int64), counts, options.split_seed, what=f"the corpus {files[0].parent}"
    )
    asked = Objective(options.masked, options.whole_words, options.next_sentence)
    splits = {}
    for name, chosen in rows.items():
        kept = np.sort(limited(chosen, np.zeros(len(chosen), np.int64), options.limit, options.split_seed))
        bucket = options.bucket and name == "train"
        splits[name] = CorpusSplit(store, everything[kept], preprocess, frame, asked, bucket=bucket)
        _check_documents(name, splits[name].documents, options)
    return splits, len(store)


def _check_documents(name: str, documents: NDArray[np.int64], options: CorpusReading) -> None:
    """A text that does not follow is drawn from another document."""
    if options.next_sentence and documents[0] == documents[-1]:
        raise DataError(
            f"task 'corpus': next_sentence needs texts of two documents, and the {name} split has them of one; put empty "
            f"lines between documents, give more texts, or set next_sentence: false"
        )
