"""What a caller's `evaluate` gives: one finite number, or an error that says what it was measured of."""

from __future__ import annotations

import math
from typing import Any

from lianzhi.errors import DataError


def one_number(found: Any, what: str = "the model") -> float:
    """What ``evaluate(model)`` gave for `what`, as a float.

    >>> one_number(0.75)
    0.75
    >>> one_number(float("nan"), "the float file")
    Traceback (most recent call last):
        ...
    lianzhi.errors.DataError: evaluate gave nan for the float file; it must give one finite number, more is better

    Raises:
        DataError: it is no number, or not finite.
    """
    try:
        value = float(found)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"evaluate gave {found!r:.60} for {what}; it must give one finite number, more is better"
        )
    return value
