"""SNLI (Bowman et al. 2015, 1508.05326): entailment, neutral or contradiction? 549,367 + 9,842 + 9,824 pairs.

Read as its authors publish it (``snli_1.0_train.txt``), or with GLUE's file names. Pairs on which the annotators did
not agree have no label and are left out. The authors' test part is reported, and one chooses by their dev part;
GLUE's folder has no labelled test part, so that its dev part is reported.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.known_text import NLI, KnownText, OnHub, Tsv, open_text
from lianzhi.tasks.text import TextOptions

TEXTS, LABEL = ("sentence1", "sentence2"), "gold_label"


class SnliOptions(TextOptions):
    """Options of `snli`."""


SNLI = KnownText(
    name="snli",
    title="SNLI",
    folder="snli_1.0",
    layouts=(
        {
            "train": Tsv("snli_1.0_train.txt", TEXTS, LABEL),
            "validation": Tsv("snli_1.0_dev.txt", TEXTS, LABEL),
            "test": Tsv("snli_1.0_test.txt", TEXTS, LABEL),
        },
        {"train": Tsv("train.tsv", TEXTS, LABEL), "test": Tsv("dev.tsv", TEXTS, LABEL)},
    ),
    hub=OnHub(
        "stanfordnlp/snli",
        "plain_text",
        {"train": "train", "validation": "validation", "test": "test"},
        ("premise", "hypothesis"),
    ),
    labels=NLI,
    words={name: number for number, name in enumerate(NLI)},
    metrics=class_metrics(3),
    gaps=True,
)


@registry.register(
    "snli",
    "SNLI: entailment, neutral or contradiction, 549,367 + 9,842 + 9,824 pairs",
    paper="https://arxiv.org/abs/1508.05326",
    config=SnliOptions,
)
def snli(data: Path | None, options: SnliOptions) -> Task:
    """Make the task from the authors' files, GLUE's, Parquet, or the hub."""
    return open_text(SNLI, data, options)
