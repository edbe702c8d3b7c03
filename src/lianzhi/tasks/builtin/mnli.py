"""MNLI of GLUE (Williams et al. 2018, 1704.05426): entailment, neutral or contradiction? 392,702 + 9,815 pairs.

The matched part of dev is the reported one; the mismatched one, of other kinds of text, is the split ``mismatched``.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import NLI, open_text
from lianzhi.tasks.text import TextOptions


class MnliOptions(TextOptions):
    """Options of `mnli`."""


MNLI = glue(
    "mnli",
    "MNLI",
    texts=("sentence1", "sentence2"),
    hub_texts=("premise", "hypothesis"),
    label="gold_label",
    files={"train": "train.tsv", "test": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"},
    splits={"train": "train", "test": "validation_matched", "mismatched": "validation_mismatched"},
    labels=NLI,
    words={name: number for number, name in enumerate(NLI)},
    metrics=class_metrics(3),
    gaps=True,
)


@registry.register(
    "mnli",
    "MNLI of GLUE: entailment, neutral or contradiction, 392,702 + 9,815 matched (9,832 mismatched) pairs",
    paper=PAPER,
    config=MnliOptions,
)
def mnli(data: Path | None, options: MnliOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(MNLI, data, options)
