"""SST-2 of GLUE (Socher et al. 2013): is a sentence of a film review positive? 67,349 + 872 sentences."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class Sst2Options(TextOptions):
    """Options of `sst2`."""


SST2 = glue(
    "sst2",
    "SST-2",
    texts=("sentence",),
    labels=("negative", "positive"),
    metrics=class_metrics(2),
)


@registry.register(
    "sst2",
    "SST-2 of GLUE: positive or negative, 67,349 + 872 sentences",
    paper=PAPER,
    config=Sst2Options,
)
def sst2(data: Path | None, options: Sst2Options) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(SST2, data, options)
