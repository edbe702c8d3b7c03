"""Texts of one's own: TSV, CSV, JSON lines, Parquet, or a folder as `datasets` saves it."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.own_text import NAME, OwnTextOptions, open_own_text


@registry.register(
    NAME,
    "Your texts, or pairs, with a class or a score: TSV, CSV, JSON lines, Parquet, a folder of `datasets`",
    config=OwnTextOptions,
)
def text(data: Path | None, options: OwnTextOptions) -> Task:
    """Make the task from a file, or a folder with the files of the parts."""
    return open_own_text(data, options)
