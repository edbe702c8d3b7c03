"""A table of texts, whatever file it is from: columns by name, and where each row is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextTable:
    """The columns asked for. `line` says where a row is; `broken` rows were passed over.

    `classes` are the names of the numbers in a column, where the file tells them.
    """

    where: str
    columns: dict[str, list[Any]]
    line: Callable[[int], str]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def joined(tables: Sequence[TextTable]) -> TextTable:
    """The rows of several tables of the same columns, one after another; the whole bears the name of the first.

    >>> one, two = (TextTable(name, {"text": [name]}, lambda row, name=name: f"{name}:{row}") for name in "ab")
    >>> whole = joined([one, two])
    >>> whole.columns, whole.line(1)
    ({'text': ['a', 'b']}, 'b:0')
    """
    first = tables[0]
    if len(tables) == 1:
        return first

    def line(row: int) -> str:
        for table in tables:
            if row < len(table):
                return table.line(row)
            row -= len(table)
        raise IndexError(row)

    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return TextTable(first.where, columns, line, first.classes, sum(table.broken for table in tables))
