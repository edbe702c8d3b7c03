"""The tasks by name."""

from __future__ import annotations

import os
from typing import Any

from lianzhi import files
from lianzhi.errors import RecipeError
from lianzhi.registry import Registry
from lianzhi.tasks._task import Task

registry = Registry("tasks", "task")


def task(name: str, *, data: str | os.PathLike[str] | None = None, **options: Any) -> Task:
    """Make a task by name; `data` is its folder or file, and the options are those of its reader.

    >>> tiny = task("synthetic", samples=64, classes=3, shape=(3, 8, 8))
    >>> tiny.size("test"), tiny.num_classes, tuple(tiny.example_inputs.shape)
    (16, 3, (1, 3, 8, 8))

    Everything that can be wrong with the data is looked for here, before any training.

    Raises:
        RecipeError: there is no such task, or it has no such option.
        DataError: the data is missing, damaged, of the wrong size, or has labels out of range.
    """
    entry = registry.get(name)
    if entry.config is None:
        raise RecipeError(f"task '{name}' was registered without a config class; register it with config=")
    return entry.build(None if data is None else files.expanded(data), entry.config(**options))
