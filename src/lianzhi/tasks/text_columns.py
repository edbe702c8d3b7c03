"""Which columns of a table are the texts and the label: as told, else by their usual names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lianzhi.errors import DataError, did_you_mean

SINGLE = ("text", "sentence", "content", "review")
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
)
LISTED = 12
LABELS, SCORES = ("label", "labels", "class"), ("score", "similarity", "label")


@dataclass(frozen=True)
class Columns:
    """The names of the columns; `second` is that of the second text, if there are pairs."""

    text: str
    second: str | None
    label: str

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.text, *([self.second] if self.second is not None else []), self.label]


def columns_of(
    given: Sequence[str], where: str, *, text: str | None, second: str | None, label: str | None, score: bool
) -> Columns:
    """The columns among those that a table has; `text`, `second`, `label`: as told.

    >>> columns_of(["id", "premise", "hypothesis", "label"], "a.csv", text=None, second=None, label=None, score=False)
    Columns(text='premise', second='hypothesis', label='label')

    Raises:
        DataError: a column that is told is not there, or none, or more than one, is known by its name.
    """
    if text is not None and text == second:
        raise DataError(f"second: '{second}' is the first text as well; name two columns, or leave it out")
    if text is not None:
        texts = (text, second)
    elif second is not None:
        raise DataError(
            f"second: '{second}' names the column of the second text; say which is the first: text: NAME"
        )
    else:
        texts = _texts(given, where)
    found = Columns(*texts, label if label is not None else _label(given, where, score))
    for name in found.names:
        if name not in given:
            raise DataError(f"{where}: no column '{name}'{did_you_mean(name, given)}")
    return found


def _texts(given: Sequence[str], where: str) -> tuple[str, str | None]:
    found: list[tuple[str, str | None]] = [(name, None) for name in SINGLE if name in given]
    found += [pair for pair in PAIRS if set(pair) <= set(given)]
    if len(found) == 1:
        return found[0]
    listed = _listed(given)
    if not found:
        raise DataError(f"{where}: which column is the text? It has {listed}; say text: NAME")
    raise DataError(
        f"{where}: several columns may be the text ({listed}); say text: NAME, and second: NAME for pairs"
    )


def _label(given: Sequence[str], where: str, score: bool) -> str:
    found = [name for name in (SCORES if score else LABELS) if name in given]
    if not found:
        raise DataError(f"{where}: which column is the label? It has {_listed(given)}; say label: NAME")
    return found[0]


def _listed(given: Sequence[str]) -> str:
    """The first names, none of them long: what is no table may have one that is the whole file."""
    more = [f"{len(given) - LISTED:,} more"] if len(given) > LISTED else []
    return ", ".join([*(f"{name!r:.60}" for name in given[:LISTED]), *more])
