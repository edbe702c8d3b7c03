"""MRPC of GLUE (Dolan and Brockett 2005): do two sentences say the same? 3,668 + 408 pairs."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import class_metrics
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.text import TextOptions


class MrpcOptions(TextOptions):
    """Options of `mrpc`."""


MRPC = glue(
    "mrpc",
    "MRPC",
    texts=("#1 String", "#2 String"),
    hub_texts=("sentence1", "sentence2"),
    label="Quality",
    labels=("not_equivalent", "equivalent"),
    metrics=class_metrics(2),
)


@registry.register(
    "mrpc",
    "MRPC of GLUE: is one sentence a paraphrase of the other, 3,668 + 408 pairs",
    paper=PAPER,
    config=MrpcOptions,
)
def mrpc(data: Path | None, options: MrpcOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(MRPC, data, options)
