"""The range that holds a given share of all values; what lies outside is clipped.

`share` per cent lie within: half of the rest is cut on each side. A side on which the data stop at 0 (after
ReLU) is not cut.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from lianzhi.quantize.observers.statistics import ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme


class Percentile(ObserverConfig):
    """`share`: per cent of the values that are not clipped (99.9, 99.99)."""

    share: float = Field(default=99.99, gt=50, le=100)


@registry.register("percentile", "the range that holds 99.99 % of the values", config=Percentile)
def percentile(seen: Statistics, scheme: Scheme, options: Percentile | None = None) -> tuple[float, float]:
    """Smallest and largest value after cutting the tails.

    >>> seen = Statistics(batches=[(0.0, 2048.0)], counts=np.ones(2048, dtype=np.int64))
    >>> percentile(seen, Scheme(8, signed=False), Percentile(share=90))
    (0.0, 1843.0)
    """
    total = int(seen.counts.sum())
    if total == 0:
        return seen.low, seen.high
    outside = 1 - (options or Percentile()).share / 100
    two_sided = seen.low < 0 < seen.high
    tail = outside / 2 if two_sided else outside
    width = (seen.high - seen.low) / len(seen.counts)
    cumulative = np.cumsum(seen.counts)
    least = int(np.searchsorted(cumulative, tail * total, side="right"))
    most = int(np.searchsorted(cumulative, (1 - tail) * total - 0.5, side="left"))
    low = seen.low if seen.low >= 0 else min(0.0, seen.low + least * width)
    high = seen.high if seen.high <= 0 else max(0.0, seen.low + (most + 1) * width)
    return low, high
