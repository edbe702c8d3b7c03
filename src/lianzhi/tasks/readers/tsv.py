"""Tables of texts with a tab between columns, as GLUE has them: a header, one row a line, quotes are literal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lianzhi.errors import DataError, did_you_mean


@dataclass(frozen=True)
class TextTable:
    """The columns asked for, and the line of the file that each row is on."""

    file: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def line(self, row: int) -> str:
        """Where a row is."""
        return f"{self.file}, line {self.lines[row]}"


def read(file: Path, columns: Sequence[str], *, header: Sequence[str] | None = None) -> TextTable:
    """Read columns by name; `header` names those of a file without a first line of names.

    A byte order mark is skipped, lines may end as on Windows, empty lines count for nothing.

    Raises:
        DataError: the file is missing, not UTF-8, lacks a column, or has a line of another number of fields.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{file}: a folder, and a table is expected") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start:,}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # splitlines would cut at other signs too
    start = 0 if header is not None else 1
    names = list(header) if header is not None else lines[0].split("\t")
    places = {}
    for column in columns:
        if column not in names:
            raise DataError(
                f"{file}: no column '{column}' in the first line{did_you_mean(column, [n[:40] for n in names])}"
            )
        places[column] = names.index(column)
    found: dict[str, list[str]] = {column: [] for column in columns}
    numbers: list[int] = []
    for number, line in enumerate(lines[start:], start + 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != len(names):
            raise DataError(
                f"{file}, line {number}: {len(fields)} fields, and the table has {len(names)} columns "
                f"({', '.join(names)}); mend the line"
            )
        for column, place in places.items():
            found[column].append(fields[place])
        numbers.append(number)
    if not numbers:
        raise DataError(f"{file}: no rows below the header; an empty part cannot be used")
    return TextTable(file, found, numbers)
