"""What a reader of texts gives: the texts of one part of a data set, with a class or a score each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks.metrics import Metric


@dataclass(frozen=True)
class TextPart:
    """Texts, or pairs of them, with labels: int64 classes, or float32 scores. `line` names a row in a message.

    `left_out` says what the reader passed over: a reason, and the number of rows.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[Any]
    where: str
    line: Callable[[int], str]
    left_out: dict[str, int] | None = None

    def keys(self) -> list[str]:
        """The texts without what does not tell them apart: case and white space."""
        return keys_of(self.texts, self.pairs)


@dataclass(frozen=True)
class TextFacts:
    """What is known of a text data set beside its texts. `labels` are the names of its classes; None: a score."""

    name: str
    source: str
    labels: tuple[str, ...] | None
    metrics: dict[str, Metric]
    lowest: float | None = None
    highest: float | None = None


def normal(text: str) -> str:
    """A text for comparison.

    >>> normal("A  good\\tFilm ")
    'a good film'
    """
    return " ".join(text.casefold().split())


def keys_of(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Texts, or pairs of them, for comparison.

    >>> keys_of(["A  film"], None) == keys_of(["a film "], [""])
    True
    """
    seconds = pairs if pairs is not None else [""] * len(texts)
    return [f"{normal(one)}\0{normal(two)}" for one, two in zip(texts, seconds, strict=True)]


def check_texts(part: TextPart) -> None:
    """Raise `DataError` for a part without texts, and for the first text without words."""
    if not len(part.texts):
        raise DataError(f"{part.where}: no texts; an empty part cannot be used")
    for row, text in enumerate(part.texts):
        if not text.strip() or (part.pairs is not None and not part.pairs[row].strip()):
            raise DataError(f"{part.line(row)}: an empty text; fill it in or take the line out")


def check_classes(part: TextPart, classes: int) -> None:
    """Raise `DataError` for the first label that is none of the classes."""
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= classes))
    if len(wrong):
        raise DataError(
            f"{part.line(int(wrong[0]))}: label {part.labels[wrong[0]]} is outside the class range "
            f"0 to {classes - 1}{_more(wrong)}; mend the labels"
        )


def check_scores(part: TextPart, lowest: float | None = None, highest: float | None = None) -> None:
    """Raise `DataError` for the first score that is no finite number, or outside its range."""
    low, high = -np.inf if lowest is None else lowest, np.inf if highest is None else highest
    wrong = np.flatnonzero(~np.isfinite(part.labels) | (part.labels < low) | (part.labels > high))
    if len(wrong):
        wanted = "not a finite number" if np.isinf([low, high]).all() else f"outside {low:g} to {high:g}"
        raise DataError(
            f"{part.line(int(wrong[0]))}: score {part.labels[wrong[0]]:g} is {wanted}{_more(wrong)}; "
            f"mend the scores"
        )


def _more(wrong: NDArray[Any]) -> str:
    return f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
