"""A Parquet table of one's own, with encoded images and labels: one file that is cut, or a file a part."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.own_images import Origin, open_images
from lianzhi.tasks.part import as_labels, named_classes
from lianzhi.tasks.pictures import Encoded
from lianzhi.tasks.readers import parquet as reader
from lianzhi.tasks.readers.folder import PARTS


class ParquetOptions(OwnImageOptions):
    """Options of `parquet`."""

    image: str | None = Field(default=None, description="column of encoded images (default: img or image)")
    label: str | None = Field(default=None, description="column of labels (default: label)")


@registry.register(
    "parquet", "Parquet of encoded images with labels, as on the Hugging Face hub", config=ParquetOptions
)
def parquet(data: Path | None, options: ParquetOptions) -> Task:
    """Make the task from a file, which is cut, or a folder with train, validation and test files."""
    if data is None:
        raise DataError(
            "task 'parquet': give data: a Parquet file, or a folder with train*.parquet and test*.parquet"
        )
    files = find(data)
    tables = {
        part: reader.read(found, image=options.image, label=options.label) for part, found in files.items()
    }
    labels, names = named_classes(
        {part: table.labels for part, table in tables.items()}, next(iter(tables.values())).names
    )
    sources = {part: encoded(table, labels[part]) for part, table in tables.items()}
    origin = Origin("parquet", str(data), None if names is None else len(names), names)
    return open_images(sources, origin, options)


def find(data: Path) -> dict[str, list[Path]]:
    """The files of each part; a single file, or a folder with no part's name in it, is a training part."""
    if data.is_file():
        return {"train": [data]}
    if not data.is_dir():
        raise DataError(f"task 'parquet': {data}: no such file or folder")
    found = {
        part: [file for name in names for file in reader.find(data, name)] for part, names in PARTS.items()
    }
    found = {part: files for part, files in found.items() if files}
    if not found:
        files = sorted(data.glob("*.parquet"))
        if not files:
            raise DataError(
                f"task 'parquet': {data} holds no Parquet files; give a file, or a folder with train*.parquet"
            )
        found = {"train": files}
    if "train" not in found:
        raise DataError(f"task 'parquet': {data} has {', '.join(found)} but no train*.parquet")
    return found


def encoded(table: reader.ImageTable, labels: object) -> Encoded:
    """The table's rows as encoded images."""
    where = str(table.files[0])
    return Encoded(table.encoded, table.where, as_labels(labels, where), table.digest, where)
