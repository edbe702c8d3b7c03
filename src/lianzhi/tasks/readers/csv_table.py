"""Tables of texts with a comma between columns (RFC 4180): quoted fields may hold commas, quotes and line breaks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks.readers.table import TextTable
from lianzhi.tasks.readers.tsv import no_names, place_of, text_of


def names(file: Path) -> list[str]:
    """The columns, as the first row names them.

    Raises:
        DataError: the file is missing, not UTF-8, or empty.
    """
    for _, row in _rows(file):
        return row
    raise no_names(file)


def read(file: Path, columns: Sequence[str], *, header: Sequence[str] | None = None) -> TextTable:
    """Read columns by name; `header` names those of a file without a first row of names. Empty lines count for nothing.

    Raises:
        DataError: the file is missing, not UTF-8, lacks a column, or has a row that is broken or of another number of
            fields.
    """
    rows = _rows(file)
    given = list(header) if header is not None else next((row for _, row in rows), [])
    places = [place_of(column, given, file) for column in columns]
    found: dict[str, list[str]] = {column: [] for column in columns}
    numbers: list[int] = []
    for number, row in rows:
        if len(row) != len(given):
            raise DataError(
                f"{file}, line {number}: {len(row)} fields, and the table has {len(given)} columns "
                f"({', '.join(given)}); mend the line, or quote a text that holds a comma"
            )
        for column, place in zip(columns, places, strict=True):
            found[column].append(row[place])
        numbers.append(number)
    if not numbers:
        raise DataError(f"{file}: no rows below the header; an empty part cannot be used")
    return TextTable(str(file), {**found}, lambda row: f"{file}, line {numbers[row]}")


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line that it begins on."""
    text = text_of(file)
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # its own is 131,072 characters
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        while True:
            begins = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{file}, line {begins}: broken ({error}); mend its quotes") from None
            if row:
                yield begins, row
    finally:
        csv.field_size_limit(limit)
