"""The best k-means clusters of sorted numbers with weights, by dynamic programming.

A best cluster is a slice. The least error of the first j numbers in k clusters is the minimum over i of that of the first
i in k - 1 and the error of the slice [i, j); the best i never falls as j grows, so that the middle j halves the range of
the others (divide and conquer, as in Ckmeans.1d.dp 4.0, Song and Zhong 2020): O(k m log m). All j of one depth of the
recursion are computed at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def optimal(values: Tensor, weights: Tensor, clusters: int) -> Tensor:
    """The centroids of the best clusters of sorted `values`, each of which counts `weights` times.

    >>> optimal(torch.tensor([0.0, 1.0, 5.0, 6.0]).double(), torch.tensor([1.0, 3.0, 1.0, 1.0]).double(), 2)
    tensor([0.7500, 5.5000], dtype=torch.float64)
    """
    points, counts = values.double().cpu().numpy(), weights.double().cpu().numpy()
    clusters = min(clusters, len(points))
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    middle = float((points * counts).sum() / weight[-1])  # large offsets would cost digits
    total = np.concatenate([[0.0], np.cumsum((points - middle) * counts)])
    ends = _slices(weight, total, clusters)
    means = np.diff(total[ends]) / np.diff(weight[ends]) + middle
    return torch.from_numpy(means).to(values.device)


def _slices(weight: Floats, total: Floats, clusters: int) -> Indices:
    """Where the slices of the best clusters end, from 0 on; `weight` and `total` are prefix sums."""
    size = len(weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(
            weight > 0, -(total**2) / weight, 0.0
        )  # error of one slice, but for the sum of squares
    best[0] = np.inf  # no slice is empty
    origins = []
    for _ in range(1, clusters):
        best, origin = _add_cluster(best, weight, total)
        origins.append(origin)
    ends = [size - 1]
    for origin in reversed(origins):
        ends.append(int(origin[ends[-1]]))
    return np.array([0, *ends[::-1]])


def _add_cluster(before: Floats, weight: Floats, total: Floats) -> tuple[Floats, Indices]:
    """The least errors with one more cluster, and where the last one begins."""
    size = len(before)
    best, origin = np.full(size, np.inf), np.zeros(size, dtype=np.int64)
    first, last = np.array([1]), np.array([size - 1])  # ranges of j
    low, high = np.array([0]), np.array([size - 2])  # ranges of its best i
    while len(first):
        j = (first + last) // 2
        top = np.minimum(high, j - 1)
        best[j], origin[j] = _least(before, weight, total, j, low, top)
        found = origin[j]
        first, last = np.concatenate([first, j + 1]), np.concatenate([j - 1, last])
        low, high = np.concatenate([low, found]), np.concatenate([found, high])
        some = first <= last
        first, last, low, high = first[some], last[some], low[some], high[some]
    return best, origin


def _least(
    before: Floats, weight: Floats, total: Floats, j: Indices, low: Indices, high: Indices
) -> tuple[Floats, Indices]:
    """For each j the least sum over i in [low, high], and that i."""
    lengths = high - low + 1
    starts = np.cumsum(lengths) - lengths
    i = np.arange(lengths.sum()) + np.repeat(low - starts, lengths)
    end = np.repeat(j, lengths)
    errors = before[i] - (total[end] - total[i]) ** 2 / (weight[end] - weight[i])
    least = np.minimum.reduceat(errors, starts)
    places = np.flatnonzero(errors == np.repeat(least, lengths))
    return least, i[places[np.searchsorted(places, starts)]]
