"""A table with all that belongs to it: what it shows, how it is made, which machines made it, what others published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.text import ABSENT, NOT_YET, Cell, Text, written

NUMBER = re.compile(r"[−+±]?[\d.,/]+( ± [\d.]+)?( ?[%×A-Za-z/秒]{1,4})?( \(\d+\))?")


@dataclass(frozen=True)
class Entry:
    """A model as a point of a chart: its name, what was done to it, and what was measured of it.

    `board` names the data that the accuracy is of, and `time` is in that board's unit (see `boards`). A number that was not
    measured is None, and the entry is then in no chart that needs it.
    """

    board: str
    label: str
    kind: str
    accuracy: float
    bytes: float | None = None
    time: float | None = None


@dataclass(frozen=True)
class Table:
    """A table in both languages. `rows` are as long as `heads`; `reads` names the files of results behind it."""

    name: str
    title: Text
    about: Text
    heads: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    commands: tuple[str, ...]
    reads: tuple[str, ...]
    notes: tuple[Text, ...] = ()
    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.heads)]
        if wrong:
            raise ValueError(
                f"{self.name}: a row has {len(wrong[0])} cells, the head {len(self.heads)}: {wrong[0]}"
            )


def markdown(heads: Sequence[Cell], rows: Sequence[Sequence[Cell]], language: str) -> str:
    r"""Rows and columns in Markdown; a column of numbers stands at the right.

    >>> print(markdown(["model", "top-1"], [["a|b", "91.0"], ["c", "–"]], "en"))
    | model | top-1 |
    |---|--:|
    | a\|b | 91.0 |
    | c | – |
    """
    head, *lines = ([written(cell, language) for cell in row] for row in (heads, *rows))
    empty = {"", ABSENT, *NOT_YET}
    right = []
    for column in list(zip(*lines, strict=True))[1:] if lines else []:
        told = [cell for cell in column if cell not in empty]
        right.append(bool(told) and all(NUMBER.fullmatch(cell) for cell in told))
    ruler = "|" + "|".join(["---", *("--:" if number else "---" for number in right)]) + "|"
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (head, *lines)]
    return "\n".join([body[0], ruler, *body[1:]])
