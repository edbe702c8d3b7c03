"""The best k-means clusters of sorted numbers with weights, by dynamic programming.

A best cluster is a slice. The least error of the first j numbers in k clusters is the minimum over i of that of the first
i in k - 1 and the error of the slice [i, j); the best i never falls as j grows, so that the middle j halves the range of
the others (divide and conquer, as in Ckmeans.1d.dp 4.0, Song and Zhong 2020): O(k m log m). All j of one depth of the
recursion are computed at once.

The error of a slice is a difference of prefix sums. They run outwards from the median, so that numbers far from it do not
take the digits of those near it, and an error is at most what the slice's width allows: zero, if its numbers are equal.
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
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    median = len(points) // 2  # not by weight: many equal numbers far away would be it
    middle = points[median]
    points = points - middle
    total = _outwards(points * counts, median)
    squares = _outwards(points**2 * counts, median)
    first, last = np.append(points, 0.0), np.insert(points, 0, 0.0)  # of a slice from here, and to here
    table = np.stack([weight, total, squares, first, last], 1)
    ends = _slices(table, min(clusters, len(points)))
    means = np.diff(total[ends]) / np.diff(weight[ends]) + middle
    return torch.from_numpy(means).to(values.device)


def _outwards(numbers: Floats, middle: int) -> Floats:
    """Prefix sums that are zero before the number in the middle."""
    left = -np.cumsum(numbers[:middle][::-1])[::-1]
    return np.concatenate([left, [0.0], np.cumsum(numbers[middle:])])


def _errors(start: Floats, end: Floats) -> Floats:
    """The errors of slices, by the rows of the table where they start and end."""
    weight, total, squares = end[:, 0] - start[:, 0], end[:, 1] - start[:, 1], end[:, 2] - start[:, 2]
    most = weight * (0.5 * (end[:, 4] - start[:, 3])) ** 2
    return np.minimum(np.maximum(squares - total**2 / weight, 0.0), most)


def _slices(table: Floats, clusters: int) -> Indices:
    """Where the slices of the best clusters end, from 0 on."""
    size = len(table)
    best = np.concatenate([[np.inf], _errors(table[:1], table[1:])])  # no slice is empty
    origins = []
    for _ in range(1, clusters):
        best, origin = _add_cluster(best, table)
        origins.append(origin)
    ends = [size - 1]
    for origin in reversed(origins):
        ends.append(int(origin[ends[-1]]))
    return np.array([0, *ends[::-1]])


def _add_cluster(before: Floats, table: Floats) -> tuple[Floats, Indices]:
    """The least errors with one more cluster, and where the last one begins."""
    size = len(before)
    best, origin = np.full(size, np.inf), np.zeros(size, dtype=np.int64)
    first, last = np.array([1]), np.array([size - 1])  # ranges of j
    low, high = np.array([0]), np.array([size - 2])  # ranges of its best i
    while len(first):
        j = (first + last) // 2
        top = np.minimum(high, j - 1)
        best[j], origin[j] = _least(before, table, j, low, top)
        found = origin[j]
        first, last = np.concatenate([first, j + 1]), np.concatenate([j - 1, last])
        low, high = np.concatenate([low, found]), np.concatenate([found, high])
        some = first <= last
        first, last, low, high = first[some], last[some], low[some], high[some]
    return best, origin


def _least(before: Floats, table: Floats, j: Indices, low: Indices, high: Indices) -> tuple[Floats, Indices]:
    """For each j the least sum over i in [low, high], and that i."""
    lengths = high - low + 1
    starts = np.cumsum(lengths) - lengths
    i = np.arange(lengths.sum()) + np.repeat(low - starts, lengths)
    errors = before[i] + _errors(table[i], np.repeat(table[j], lengths, axis=0))
    least = np.minimum.reduceat(errors, starts)
    places = np.flatnonzero(errors == np.repeat(least, lengths))
    return least, i[places[np.searchsorted(places, starts)]]
