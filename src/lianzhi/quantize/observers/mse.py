"""The range that makes the mean squared error of quantization least.

The error of a candidate is computed on the histogram: rounding and clipping of each bin's middle, weighted by
its count. First both ends shrink together, then each by itself around the best.
"""

from __future__ import annotations

import numpy as np

from lianzhi.quantize.observers.statistics import ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme

CANDIDATES = 100


class Mse(ObserverConfig):
    """No options."""


@registry.register("mse", "the range with the least mean squared error", config=Mse)
def mse(seen: Statistics, scheme: Scheme, options: Mse | None = None) -> tuple[float, float]:
    """Best smallest and largest value.

    >>> counts = np.zeros(2048, dtype=np.int64); counts[:1024] = 10_000; counts[-1] = 1     # one outlier
    >>> low, high = mse(Statistics(batches=[(0.0, 2.0)], counts=counts), Scheme(4, signed=False, symmetric=False))
    >>> low, round(high, 1)
    (0.0, 1.0)
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if not seen.counts.any() or high == low:
        return low, high
    used = np.nonzero(seen.counts)[0]
    values, weights = seen.centres[used], seen.counts[used].astype(np.float64)

    def best(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
        errors = [squared_error(values, weights, *pair, scheme) for pair in zip(lows, highs, strict=True)]
        winner = int(np.argmin(errors))
        return float(lows[winner]), float(highs[winner])

    shrink = np.linspace(1.0, 1.0 / CANDIDATES, CANDIDATES)
    found = best(low * shrink, high * shrink)
    if scheme.symmetric or low == 0 or high == 0:
        return found
    around = np.linspace(0.5, 1.5, CANDIDATES // 2 + 1)
    for _ in range(2):
        found = best(np.maximum(found[0] * around, low), np.full(len(around), found[1]))
        found = best(np.full(len(around), found[0]), np.minimum(found[1] * around, high))
    return found


def squared_error(values: np.ndarray, weights: np.ndarray, low: float, high: float, scheme: Scheme) -> float:
    """The weighted squared error of quantizing `values` on the grid of a range."""
    if scheme.symmetric:
        scale = max(-low, high) / (scheme.qmax if scheme.signed else scheme.levels)
        zero_point = 0.0
    else:
        scale = (high - low) / scheme.levels
        zero_point = np.round(scheme.qmin - low / scale)
    integers = np.clip(np.round(values / scale) + zero_point, scheme.qmin, scheme.qmax)
    return float((weights * np.square((integers - zero_point) * scale - values)).sum())
