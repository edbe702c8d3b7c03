"""Parquet tables of images, as the Hugging Face hub keeps them: an image column and a label column.

An image is a struct ``{bytes, path}``, or plain bytes: an encoded file (PNG, JPEG, …) either way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks import cache

IMAGES = ("img", "image", "images")
LABELS = ("label", "labels", "fine_label", "class", "target", "y")
IN_MEMORY = 2 * 2**30


@dataclass(frozen=True)
class ImageTable:
    """Encoded images (an Arrow column of bytes) with labels: class numbers, or class names."""

    files: tuple[Path, ...]
    images: Any
    labels: NDArray[Any]
    names: list[str] | None
    digest: str
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, row: int) -> bytes:
        """The bytes of one image."""
        return self.images[row].as_py()

    def where(self, row: int) -> str:
        """The file and the row within it."""
        for file, count in zip(self.files, self.counts, strict=True):
            if row < count:
                return f"{file}, row {row}"
            row -= count
        raise IndexError(row)

    @property
    def jpeg(self) -> bool:
        """Whether the images are JPEGs, which lost a little when they were written."""
        return len(self) > 0 and self.encoded(0)[:2] == b"\xff\xd8"


def find(folder: Path, part: str) -> list[Path]:
    """The Parquet files of a part (``train``, ``test``, …) in a folder or one folder below."""
    found = {
        file
        for pattern in (
            f"{part}.parquet",
            f"{part}-*.parquet",
            f"*/{part}-*.parquet",
            f"*/{part}.parquet",
            f"{part}/*.parquet",
        )
        for file in folder.glob(pattern)
    }
    return sorted(found)


def read(files: list[Path], *, image: str | None = None, label: str | None = None) -> ImageTable:
    """Read the table of one part.

    Raises:
        DataError: a file is missing or damaged, lacks a column, or has a row without image or label.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, names = [], None
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                columns = [
                    _column(schema, image, IMAGES, file, "image"),
                    _column(schema, label, LABELS, file, "label"),
                ]
                names = names or _class_names(schema, columns[1])
                table = (
                    _large(opened, file, columns) if file.stat().st_size > IN_MEMORY else opened.read(columns)
                )
        except FileNotFoundError:
            raise DataError(f"{file}: no such file") from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file ({error}); get it again") from None
        if not table.num_rows:
            raise DataError(f"{file}: has no rows")
        tables.append(
            (_bytes(table.column(columns[0]), file, columns[0]), _labels(table.column(columns[1]), file))
        )
    images = pa.chunked_array([chunk for column, _ in tables for chunk in column.chunks])
    labels = np.concatenate([values for _, values in tables])
    counts = tuple(len(values) for _, values in tables)
    return ImageTable(tuple(files), images, labels, names, cache.digest_files(files), counts)


def _column(schema: Any, wanted: str | None, usual: tuple[str, ...], file: Path, what: str) -> str:
    """The name of the column, as told, or the usual one."""
    if wanted is not None:
        if wanted not in schema.names:
            raise DataError(f"{file}: no column '{wanted}'{did_you_mean(wanted, schema.names)}")
        return wanted
    for name in usual:
        if name in schema.names:
            return name
    raise DataError(
        f"{file}: no {what} column among {', '.join(schema.names)} (looked for {', '.join(usual)}); "
        f"name it with the option '{what}'"
    )


def _bytes(column: Any, file: Path, name: str) -> Any:
    """The encoded images as a column of binaries, none missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type):
        if column.type.get_field_index("bytes") < 0:
            raise DataError(f"{file}: the column '{name}' has no field 'bytes', but {column.type}")
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"{file}: the column '{name}' is {column.type}; it must hold encoded images (bytes)")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"{file}, row {row}: no image bytes in the column '{name}'; fill it or take the row out"
        )
    return column


def _labels(column: Any, file: Path) -> NDArray[Any]:
    import pyarrow as pa

    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{file}, row {row}: no label; fill it or take the row out")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.int64()).to_numpy()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(column.to_pylist(), dtype=object)
    raise DataError(f"{file}: labels are {column.type}; they must be class numbers or class names")


def _class_names(schema: Any, label: str) -> list[str] | None:
    """Class names from the hub's own notes in the file."""
    try:
        notes = json.loads((schema.metadata or {})[b"huggingface"])
        names = notes["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return None


def _large(opened: Any, file: Path, columns: list[str]) -> Any:
    """A table too large for memory, copied once into an Arrow file in the cache that is mapped."""
    import pyarrow as pa

    copy = cache.folder() / "tables" / f"{cache.digest_files([file])}-{'-'.join(columns)}.arrow"
    if not copy.is_file():

        def fill(stream: Any) -> None:
            schema = pa.schema([opened.schema_arrow.field(name) for name in columns])
            with pa.ipc.new_file(stream, schema) as writer:
                for batch in opened.iter_batches(batch_size=256, columns=columns):
                    writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)

        try:
            cache.write(copy, fill)
        except OSError as error:
            raise DataError(
                f"{file}: too large for memory, and cannot be unpacked into {copy.parent} ({error}); "
                f"free some space, or set LIANZHI_CACHE to a folder on a larger disk"
            ) from None
    return pa.ipc.open_file(pa.memory_map(str(copy))).read_all()
