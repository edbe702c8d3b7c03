"""NumPy archives of one's own: images as uint8, or plain numbers, with labels."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.arrays import open_arrays
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.readers import npz as reader
from lianzhi.tasks.readers.folder import find_files


class NpzOptions(OwnImageOptions):
    """Options of `npz`."""

    inputs: str | None = Field(
        default=None, description="name of the array of samples (default: x, images, …)"
    )
    labels: str | None = Field(
        default=None, description="name of the array of labels (default: y, labels, …)"
    )


@registry.register("npz", "NumPy archive of images or numbers with labels", config=NpzOptions)
def npz(data: Path | None, options: NpzOptions) -> Task:
    """Make the task from one archive, or from a folder with train.npz, test.npz."""
    if data is None:
        raise DataError(
            "task 'npz': give data: an .npz file with x and y, or a folder with train.npz and test.npz"
        )
    if not data.is_dir():
        return open_arrays("npz", data, reader.read(data, options.inputs, options.labels), options)
    files = find_files(data, "npz")
    arrays = {
        part: reader.read(file, options.inputs, options.labels)["train"] for part, file in files.items()
    }
    return open_arrays("npz", data, arrays, options)
