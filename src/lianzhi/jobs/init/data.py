"""Which data: what lies in the current folder, or what `--data` and `--task` name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lianzhi import files, tasks
from lianzhi.errors import DataError
from lianzhi.jobs.init.missing import Ask, Missing, answer
from lianzhi.jobs.init.places import entries
from lianzhi.tasks.recognize import Recognized, explained, recognize

HINT = (
    "data is a folder with one subfolder of images a class, Parquet, IDX or .npz files, GLUE's folders, or a TSV, CSV or "
    "JSON lines file of texts with labels"
)


def choose(path: str | None, task: str | None, options: Mapping[str, Any], ask: Ask | None) -> Recognized:
    """The data and the task that reads it.

    Raises:
        DataError: nothing that is known lies at `path`.
        RecipeError: there is no such task; or nothing, or more than one thing, was found, and nobody says which.
    """
    if task is not None:
        summary = tasks.registry.get(task).summary
        place = files.expanded(path) if path is not None else _of_task(task, options)
        return Recognized(place, task, summary)
    if path is not None:
        return explained(files.expanded(path), options)
    found = look(Path(), options)
    if len(found) == 1:
        return found[0]
    choices = tuple((os.fspath(item.path), item.what) for item in found)
    what = "Which data?" if found else "No data was found in this folder."
    return explained(files.expanded(answer(Missing("--data", what, choices, HINT), ask)), options)


def look(folder: Path, options: Mapping[str, Any] | None = None) -> list[Recognized]:
    """Data in a folder and one folder below. What lies in a folder that is data itself is a part of it."""
    found: list[Recognized] = []
    for place in (folder, *entries(folder)):
        if any(item.path.is_dir() and item.path in place.parents for item in found):
            continue
        item = _recognized(place, options)
        if item is not None:
            found.append(item)
        if item is not None and place == folder:
            return found
    return found


def _recognized(place: Path, options: Mapping[str, Any] | None) -> Recognized | None:
    if place.suffix == ".json" and place.is_file():  # rarely texts; --data takes it
        return None
    try:
        return recognize(place, options)
    except DataError:  # a table of something else; one that --data names is complained of
        return None


def _of_task(task: str, options: Mapping[str, Any]) -> Path:
    """Where the data of a task that is named lies; an empty path where it finds its data itself."""
    found = [item for item in look(Path(), options) if item.task == task]
    return found[0].path if len(found) == 1 else Path()
