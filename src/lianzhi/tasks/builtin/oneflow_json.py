"""Data as the OneFlow platform keeps it: JSON with ``data``, ``label`` and ``shape``."""

from __future__ import annotations

from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.arrays import open_arrays
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.readers import oneflow_json as reader
from lianzhi.tasks.readers.folder import find_files


class OneflowJsonOptions(OwnImageOptions):
    """Options of `oneflow_json`."""


@registry.register(
    "oneflow_json", "The OneFlow platform's JSON: data, label, shape", config=OneflowJsonOptions
)
def oneflow_json(data: Path | None, options: OneflowJsonOptions) -> Task:
    """Make the task from one file, which is cut, or from a folder with train.json, test.json."""
    if data is None:
        raise DataError(
            "task 'oneflow_json': give data: a JSON file, or a folder with train.json and test.json"
        )
    files = find_files(data, "json") if data.is_dir() else {"train": data}
    return open_arrays(
        "oneflow_json", data, {part: reader.read(file) for part, file in files.items()}, options
    )
