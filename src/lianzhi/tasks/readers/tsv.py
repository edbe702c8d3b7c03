"""Tables of texts with a tab between columns, as GLUE has them: a header, one row a line, quotes are literal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks.readers.table import TextTable


def names(file: Path) -> list[str]:
    """The columns, as the first line names them.

    Raises:
        DataError: the file is missing, not UTF-8, or its first line is empty.
    """
    first = lines_of(file)[0]
    if not first:
        raise no_names(file)
    return first.split("\t")


def read(
    file: Path, columns: Sequence[str], *, header: Sequence[str] | None = None, gaps: bool = False
) -> TextTable:
    """Read columns by name; `header` names those of a file without a first line of names.

    A byte order mark is skipped, lines may end as on Windows, empty lines at the end count for nothing. With `gaps`,
    lines that are broken (empty, without one of the columns, or with too many fields) are passed over and counted.

    Raises:
        DataError: the file is missing, not UTF-8, lacks a column, or has a line that is empty or of another number of
            fields.
    """
    lines = lines_of(file)
    start = 0 if header is not None else 1
    while len(lines) > start and not lines[-1]:
        del lines[-1]
    given = list(header) if header is not None else lines[0].split("\t")
    places = [place_of(column, given, file) for column in columns]
    found: list[list[str]] = [[] for _ in columns]
    numbers: list[int] = []
    broken = 0
    for number, line in enumerate(lines[start:], start + 1):
        fields = line.split("\t") if line else []
        if gaps and not max(places, default=0) < len(fields) <= len(given):
            broken += 1
            continue
        if not gaps and len(fields) != len(given):
            what = f"{len(fields)} fields" if line else "an empty line"
            raise DataError(
                f"{file}, line {number}: {what}, and the table has {len(given)} columns ({', '.join(given)}); mend the "
                f"line{'' if line else ', or take it out'}"
            )
        for values, place in zip(found, places, strict=True):
            values.append(fields[place])
        numbers.append(number)
    if not numbers:
        raise DataError(f"{file}: no rows below the header; an empty part cannot be used")
    whole: dict[str, list[Any]] = dict(zip(columns, found, strict=True))
    return TextTable(str(file), whole, lambda row: f"{file}, line {numbers[row]}", broken=broken)


def lines_of(file: Path) -> list[str]:
    """The lines of a UTF-8 file, without a byte order mark and without what Windows ends lines with."""
    return [
        line.removesuffix("\r") for line in text_of(file).split("\n")
    ]  # splitlines cuts at other signs too


def text_of(file: Path) -> str:
    """The text of a UTF-8 file without a byte order mark.

    Raises:
        DataError: the file is missing, is a folder, cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{file}: a folder, and a table is expected") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start:,}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def no_names(file: Path) -> DataError:
    """What is wrong with a table whose first line is empty."""
    what = "an empty first line" if file.stat().st_size else "an empty file"
    return DataError(f"{file}: {what}; a table begins with the names of the columns")


def place_of(column: str, names: Sequence[str], file: Path) -> int:
    """Where a column stands; raises `DataError` if it does not."""
    if column not in names:
        raise DataError(
            f"{file}: no column '{column}' in the first line{did_you_mean(column, [n[:40] for n in names])}"
        )
    if list(names).count(column) > 1:
        raise DataError(
            f"{file}: the column '{column}' stands twice in the first line; give each its own name"
        )
    return list(names).index(column)
