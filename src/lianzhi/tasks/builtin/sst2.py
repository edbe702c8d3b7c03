"""SST-2 of GLUE (Socher et al. 2013): is a sentence of a film review positive? 67,349 + 872 sentences."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.glue import GlueTask, open_glue
from lianzhi.tasks.metrics import top1
from lianzhi.tasks.text import TextOptions


class Sst2Options(TextOptions):
    """Options of `sst2`."""


SST2 = GlueTask(
    name="sst2",
    folder="SST-2",
    sentences=("sentence",),
    label="label",
    labels=("negative", "positive"),
    metrics={"accuracy": top1},
    hub_sentences=("sentence",),
)


@registry.register("sst2", "SST-2 of GLUE: positive or negative, 67,349 + 872 sentences", config=Sst2Options)
def sst2(data: Path | None, options: Sst2Options) -> Task:
    """Make the task from GLUE's TSV files or the hub."""
    return open_glue(SST2, data, options)
