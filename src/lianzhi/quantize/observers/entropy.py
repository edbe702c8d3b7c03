"""The threshold that loses the least information, by Kullback-Leibler divergence.

NVIDIA's calibration (S. Migacz, "8-bit inference with TensorRT", GTC 2017): of the histogram of magnitudes,
the values beyond a threshold are clipped into its last bin (P); the bins below it are merged into as many as
the grid has positive levels, and spread evenly over those of their bins that were not empty (Q). The
threshold with the least KL(P || Q) wins. A range with both signs is cut at ± the threshold.
"""

from __future__ import annotations

import numpy as np

from lianzhi.quantize.observers.statistics import BINS, ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme

STEP = 8


class Entropy(ObserverConfig):
    """No options."""


@registry.register("entropy", "the threshold with the least KL divergence (TensorRT's)", config=Entropy)
def entropy(seen: Statistics, scheme: Scheme, options: Entropy | None = None) -> tuple[float, float]:
    """Smallest and largest value within the best threshold.

    >>> counts = np.zeros(2048, dtype=np.int64); counts[:1024] = 10_000; counts[-1] = 1     # one outlier
    >>> low, high = entropy(Statistics(batches=[(0.0, 2.0)], counts=counts), Scheme(8, signed=False))
    >>> low, round(high, 1)
    (0.0, 1.0)
    """
    if not seen.counts.any():
        return seen.low, seen.high
    largest = max(abs(seen.low), abs(seen.high))
    magnitudes, _ = np.histogram(np.abs(seen.centres), bins=BINS, range=(0.0, largest), weights=seen.counts)
    magnitudes[0] = magnitudes[1]  # zeros are exact at any threshold; ReLU's would outweigh all else
    two_sided = seen.low < 0 < seen.high
    levels = scheme.levels // 2 if two_sided else scheme.levels
    ends = range(levels, BINS + 1, STEP)
    divergences = [divergence(magnitudes, end, levels) for end in ends]
    threshold = ends[int(np.argmin(divergences))] * largest / BINS
    return max(seen.low, -threshold), min(seen.high, threshold)


def divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """KL(P || Q) of clipping after `end` bins and merging these into `levels`.

    >>> divergence(np.ones(2048), 2048, 256)
    0.0
    """
    kept = counts[:end].astype(np.float64)
    reference = kept.copy()
    reference[-1] += counts[end:].sum()
    if not kept.any():
        return float("inf")
    group = np.minimum(np.arange(end) * levels // end, levels - 1)
    filled = kept > 0
    sums = np.bincount(group, weights=kept, minlength=levels)
    members = np.bincount(group, weights=filled, minlength=levels)
    spread = np.where(filled, (sums / np.maximum(members, 1))[group], 0.0)
    p, q = reference / reference.sum(), spread / spread.sum()
    support = p > 0
    if (q[support] == 0).any():
        q = (q + 1e-9) / (q + 1e-9).sum()
    return float((p[support] * np.log(p[support] / q[support])).sum())
