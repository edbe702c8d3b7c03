"""CoLA of GLUE (Warstadt et al. 2018, 1805.12471): is a sentence good English? 8,551 + 1,043 sentences.

Its files have no line of names. Matthews' correlation decides: 69 % of the sentences are acceptable.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.confusion import f1, matthews, precision, recall
from lianzhi.tasks.glue import PAPER, glue
from lianzhi.tasks.known_text import open_text
from lianzhi.tasks.metrics import top1
from lianzhi.tasks.text import TextOptions


class ColaOptions(TextOptions):
    """Options of `cola`."""


COLA = glue(
    "cola",
    "CoLA",
    texts=("sentence",),
    header=("source", "label", "mark", "sentence"),
    labels=("unacceptable", "acceptable"),
    metrics={"matthews": matthews, "accuracy": top1, "f1": f1, "precision": precision, "recall": recall},
)


@registry.register(
    "cola",
    "CoLA of GLUE: acceptable English or not, 8,551 + 1,043 sentences",
    paper=PAPER,
    config=ColaOptions,
)
def cola(data: Path | None, options: ColaOptions) -> Task:
    """Make the task from GLUE's TSV files, Parquet, or the hub."""
    return open_text(COLA, data, options)
