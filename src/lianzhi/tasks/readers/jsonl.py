"""Tables of texts with a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks.readers.table import TextTable
from lianzhi.tasks.readers.tsv import lines_of


def names(file: Path) -> list[str]:
    """The keys of the first object."""
    for _, row in _rows(file):
        return list(row)
    raise DataError(f"{file}: no rows; an empty part cannot be used")


def read(file: Path, columns: Sequence[str]) -> TextTable:
    """Read the values of some keys. Empty lines count for nothing.

    Raises:
        DataError: the file is missing, not UTF-8, or has a line that is no object or lacks a key.
    """
    found: dict[str, list[Any]] = {column: [] for column in columns}
    numbers: list[int] = []
    for number, row in _rows(file):
        for column, values in found.items():
            if column not in row:
                raise DataError(f"{file}, line {number}: no key '{column}'{did_you_mean(column, row)}")
            values.append(row[column])
        numbers.append(number)
    if not numbers:
        raise DataError(f"{file}: no rows; an empty part cannot be used")
    return TextTable(str(file), found, lambda row: f"{file}, line {numbers[row]}")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines_of(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}, line {number}: not JSON ({str(error)[:100]}); write one object a line"
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"{file}, line {number}: a {type(row).__name__}, and an object is expected; write one object a line"
            )
        yield number, row
