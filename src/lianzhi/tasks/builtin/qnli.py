"""QNLI of GLUE (from SQuAD, Rajpurkar et al. 2016): does a sentence hold the answer? 104,743 + 5,463 pairs."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class QnliOptions(TextOptions):
    """Options of `qnli`."""


QNLI = glue(
    "qnli",
    "QNLI",
    texts=("question", "sentence"),
    labels=("entailment", "not_entailment"),
    words={"entailment": 0, "not_entailment": 1},
    metrics=class_metrics(2),
)


@registry.register(
    "qnli",
    "QNLI of GLUE: does a sentence hold the answer to a question, 104,743 + 5,463 pairs",
    paper=PAPER,
    config=QnliOptions,
)
def qnli(data: Path | None, options: QnliOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(QNLI, data, options)
