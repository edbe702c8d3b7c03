"""Data as the OneFlow platform keeps it: JSON with ``data``, ``label`` and ``shape``."""

from __future__ import annotations

from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.arrays import open_arrays
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.readers import oneflow_json as reader
from lianzhi.tasks.readers.folder import PARTS


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
    files = {"train": data}
    if data.is_dir():
        files = {part: data / f"{name}.json" for part, names in PARTS.items() for name in names}
        files = {part: file for part, file in files.items() if file.is_file()}
        if "train" not in files:
            raise DataError(
                f"task 'oneflow_json': {data} holds no train.json; give a JSON file, or such a folder"
            )
    return open_arrays(
        "oneflow_json", data, {part: reader.read(file) for part, file in files.items()}, options
    )
