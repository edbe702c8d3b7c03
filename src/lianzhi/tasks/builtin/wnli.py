"""WNLI of GLUE (from Levesque et al. 2011): does a sentence with its pronoun filled in follow? 635 + 71 pairs."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class WnliOptions(TextOptions):
    """Options of `wnli`."""


WNLI = glue(
    "wnli",
    "WNLI",
    texts=("sentence1", "sentence2"),
    labels=("not_entailment", "entailment"),
    metrics=class_metrics(2),
)


@registry.register(
    "wnli",
    "WNLI of GLUE: does a sentence with its pronoun filled in follow, 635 + 71 pairs",
    paper=PAPER,
    config=WnliOptions,
)
def wnli(data: Path | None, options: WnliOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(WNLI, data, options)
