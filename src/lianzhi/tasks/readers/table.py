"""A table of texts, whatever file it is from: columns by name, and where each row is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lianzhi.errors import DataError


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

    A table that numbers the same classes in another order gets the numbers of the first.

    >>> one, two = (TextTable(name, {"text": [name]}, lambda row, name=name: f"{name}:{row}") for name in "ab")
    >>> whole = joined([one, two])
    >>> whole.columns, whole.line(1)
    ({'text': ['a', 'b']}, 'b:0')

    Raises:
        DataError: a table has other classes than the first, or names where the first has numbers.
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

    columns = {
        name: [value for table in tables for value in _as_in(first, table, name)] for name in first.columns
    }
    return TextTable(first.where, columns, line, first.classes, sum(table.broken for table in tables))


def _as_in(first: TextTable, table: TextTable, column: str) -> list[Any]:
    """The values of a column, their classes numbered as in the first table."""
    names, own = first.classes.get(column), table.classes.get(column)
    values = table.columns[column]
    if own == names:
        return values
    if names is None or own is None or sorted(own) != sorted(names):
        one, other = (f"the classes {', '.join(given)}" if given else "no classes" for given in (names, own))
        raise DataError(
            f"{table.where}: '{column}' has {other} there and {one} in {first.where}; the files of a part need the same ones"
        )
    places = [names.index(name) for name in own]
    known = range(len(places))
    return [places[value] if isinstance(value, int) and value in known else value for value in values]
