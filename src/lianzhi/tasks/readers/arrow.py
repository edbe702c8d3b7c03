"""Tables of texts in Parquet files and in the Arrow files of `datasets`, both with the class names beside them.

The hub keeps Parquet, `Dataset.save_to_disk` writes Arrow streams; both are read by pyarrow, without running code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks.readers.table import TextTable

PARQUET, ARROW = ".parquet", ".arrow"
END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream: a message of no length


def names(file: Path) -> list[str]:
    """The columns."""
    return list(_open(file).column_names)


def read(file: Path, columns: Sequence[str]) -> TextTable:
    """Read columns by name.

    Raises:
        DataError: the file is missing or damaged, or lacks a column.
    """
    table = _open(file)
    for column in columns:
        if column not in table.column_names:
            raise DataError(f"{file}: no column '{column}'{did_you_mean(column, table.column_names)}")
    values = {column: table[column].to_pylist() for column in columns}
    return TextTable(str(file), values, lambda row: f"{file}, row {row}", _classes(table, columns))


def _open(file: Path) -> Any:
    """The table of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file) if file.suffix.lower() == PARQUET else _stream(file)
        table.validate(full=True)  # a damaged one would be read beyond its end
        return table
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(f"{file}: damaged, or no {file.suffix[1:]} file ({reason}); restore it") from None


def _stream(file: Path) -> Any:
    """The table of an Arrow file, which is a stream as `datasets` writes it, or has an index at its end.

    The library takes the end of a file for the end of a stream, wherever that was cut off.
    """
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        try:
            found = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).read_all()
        source.seek(max(source.size() - len(END), 0))
        if source.read() != END:
            raise ValueError("the stream does not end with its marker: rows are missing")
        return found


def _classes(table: Any, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The names of class columns, as `datasets` keeps them in the table's own description."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(str(name) for name in features[column]["names"])
            for column in columns
            if isinstance(features.get(column), dict) and features[column].get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
