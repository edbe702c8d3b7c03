"""Classes and scores of texts of one's own, from whatever a file has: names, numbers, or the names of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean

Line = Callable[[int], str]


class Classes:
    """The classes of a data set, and how its files write them: by name, or by number.

    >>> found = Classes.of(["ham", "spam", "ham"], lambda row: f"line {row}")
    >>> found.names, found.numbers(["spam", "ham"], lambda row: f"line {row}").tolist()
    (('ham', 'spam'), [1, 0])
    """

    def __init__(self, names: Sequence[str], by_number: bool) -> None:
        self.names, self.by_number = tuple(names), by_number
        self.places = {str(number) if by_number else name: number for number, name in enumerate(self.names)}

    @classmethod
    def of(cls, values: Sequence[Any], line: Line, names: Sequence[str] | None = None) -> Classes:
        """The classes of the labels to train on; `names` are in the order of their numbers (default: sorted).

        Raises:
            DataError: a label is missing, has a fraction, or is none of `names`; or there are fewer than two classes.
        """
        written = [_written(value, line, row) for row, value in enumerate(values)]
        if names is not None:
            found = cls(names, by_number=_by_number(written, names))
        else:
            for row, value in enumerate(written):
                what = _no_class(value)
                if what is not None:
                    raise DataError(
                        f"{line(row)}: label {value:.40} is {what}; set score: true to predict numbers, or name the "
                        f"classes: labels: [{value:.40}, …]"
                    )
            found = cls(sorted(set(written), key=_order), by_number=False)
        if len(found.names) < 2:
            raise DataError(
                f"{line(0)}: all labels are {found.names[0]!r:.40}; a classifier needs two classes or more"
            )
        return found

    def numbers(self, values: Sequence[Any], line: Line) -> NDArray[np.int64]:
        """The class of each label.

        Raises:
            DataError: a label is missing, or is none of the classes.
        """
        return np.asarray([self._number(value, line, row) for row, value in enumerate(values)], np.int64)

    def _number(self, value: Any, line: Line, row: int) -> int:
        written = _written(value, line, row)
        if written not in self.places:
            if self.by_number:
                numbered = (
                    f"the numbers of the classes are 0 to {len(self.names) - 1} ({', '.join(self.names)})"
                )
                raise DataError(f"{line(row)}: label {written!r:.40} is unknown; {numbered:.400}")
            raise DataError(
                f"{line(row)}: label {written!r:.40} is unknown{did_you_mean(written, self.places)}"
            )
        return self.places[written]


def scores(values: Sequence[Any], line: Line) -> NDArray[np.float32]:
    """Numbers to predict.

    Raises:
        DataError: one is missing, or is not a number.
    """
    return np.asarray([_score(value, line, row) for row, value in enumerate(values)], np.float32)


def _score(value: Any, line: Line, row: int) -> float:
    try:
        if not isinstance(value, bool) and "_" not in str(value):  # Python reads 1_000
            score = float(value)
            if not abs(score) > float(np.finfo(np.float32).max):
                return score
            raise DataError(
                f"{line(row)}: score {value!r:.40} is not finite in single precision; mend the line"
            )
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{line(row)}: score {value!r:.40} is not a number; mend the line")


def _written(value: Any, line: Line, row: int) -> str:
    """A label as text: 1.0 as 1, true as it is in JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or not str(value).strip() or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{line(row)}: no label; fill it in or take the line out")
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{line(row)}: the label is a {type(value).__name__}; give a name or a number")
    return str(value).strip()


def _by_number(written: Sequence[str], names: Sequence[str]) -> bool:
    """Whether labels are numbers of `names`: all of them are, or most would be, so that the others are the wrong ones."""
    if set(names).issuperset(written):
        return False
    if {str(number) for number in range(len(names))}.issuperset(written):
        return True
    numbers = sum(_is_whole(value) for value in written)
    return 2 * numbers > len(written) and not any(map(_is_whole, names))


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _no_class(text: str) -> str | None:
    """Why a label is hardly the name of a class; None if it may be one."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return "no finite number"
    return None if number.is_integer() else "a number with a fraction"


def _order(name: str) -> tuple[int, float, str]:
    """Whole numbers by size, then names by the alphabet."""
    return (0, int(name), "") if _is_whole(name) else (1, 0, name)
