"""STS-B of GLUE (Cer et al. 2017, 1708.00055): how alike are two sentences, from 0 to 5? 5,749 + 1,500 pairs.

A score: the model has one output, the loss is the mean squared error, and Pearson's correlation decides.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.correlations import score_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class StsbOptions(TextOptions):
    """Options of `stsb`."""


STSB = glue(
    "stsb",
    "STS-B",
    texts=("sentence1", "sentence2"),
    label="score",
    labels=None,
    metrics=score_metrics(),
    lowest=0.0,
    highest=5.0,
)


@registry.register(
    "stsb",
    "STS-B of GLUE: how alike two sentences are, a score from 0 to 5, 5,749 + 1,500 pairs",
    paper=PAPER,
    config=StsbOptions,
)
def stsb(data: Path | None, options: StsbOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(STSB, data, options)
