"""QQP of GLUE (Iyer et al. 2017): do two questions ask the same? 363,846 + 40,430 pairs.

Some questions of the published file hold a line break, so that their rows are broken, and a few are empty.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class QqpOptions(TextOptions):
    """Options of `qqp`."""


QQP = glue(
    "qqp",
    "QQP",
    texts=("question1", "question2"),
    label="is_duplicate",
    labels=("not_duplicate", "duplicate"),
    metrics=class_metrics(2),
    gaps=True,
)


@registry.register(
    "qqp",
    "QQP of GLUE: do two questions ask the same, 363,846 + 40,430 pairs",
    paper=PAPER,
    config=QqpOptions,
)
def qqp(data: Path | None, options: QqpOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(QQP, data, options)
