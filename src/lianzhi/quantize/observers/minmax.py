"""The whole range that was seen. Nothing is clipped; one outlier costs everybody else resolution."""

from __future__ import annotations

from typing import ClassVar

from lianzhi.quantize.observers.statistics import ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme


class MinMax(ObserverConfig):
    """No options."""

    histogram: ClassVar[bool] = False


@registry.register("minmax", "the whole range of the calibration data", config=MinMax)
def minmax(seen: Statistics, scheme: Scheme, options: MinMax | None = None) -> tuple[float, float]:
    """Smallest and largest value.

    >>> minmax(Statistics(batches=[(-1.0, 2.0), (-3.0, 1.0)]), Scheme(8))
    (-3.0, 2.0)
    """
    return seen.low, seen.high
