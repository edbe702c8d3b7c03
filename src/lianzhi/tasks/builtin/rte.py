"""RTE of GLUE (Dagan et al. 2006 and its successors): does a text entail a sentence? 2,490 + 277 pairs."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class RteOptions(TextOptions):
    """Options of `rte`."""


RTE = glue(
    "rte",
    "RTE",
    texts=("sentence1", "sentence2"),
    labels=("entailment", "not_entailment"),
    words={"entailment": 0, "not_entailment": 1},
    metrics=class_metrics(2),
)


@registry.register(
    "rte",
    "RTE of GLUE: does a text entail a sentence, 2,490 + 277 pairs",
    paper=PAPER,
    config=RteOptions,
)
def rte(data: Path | None, options: RteOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(RTE, data, options)
