"""The best k-means clusters of sorted numbers with weights, by dynamic programming.

A best cluster is a slice. The least error of the first j numbers in k clusters is the minimum over i of that of the first
i in k - 1 and the error of the slice [i, j). The best i never falls as j grows, so that the middle j halves the range of
the others (divide and conquer, as in Ckmeans.1d.dp 4.0, Song and Zhong 2020); nor does it as k grows (Knuth 1971), so that
it is looked for from that of k - 1 clusters on. No slice is empty: of m numbers in K clusters, cluster k ends at one of
m - K + 1 places. All j of one depth of the recursion are computed at once.

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
    starts = np.stack([weight, total, squares, np.append(points, 0.0)])  # of slices from here
    ends = np.stack([weight, total, squares, np.insert(points, 0, 0.0)])  # of slices to here
    places = _places(starts, ends, min(clusters, len(points)))
    means = np.diff(total[places]) / np.diff(weight[places]) + middle
    return torch.from_numpy(means).to(values.device)


def _outwards(numbers: Floats, middle: int) -> Floats:
    """Prefix sums that are zero before the number in the middle."""
    left = -np.cumsum(numbers[:middle][::-1])[::-1]
    return np.concatenate([left, [0.0], np.cumsum(numbers[middle:])])


def _errors(starts: Floats, ends: Floats) -> Floats:
    """The errors of slices, by the columns of the tables where they start and end."""
    weight, total, squares, width = ends - starts
    most = weight * (0.5 * width) ** 2
    return np.minimum(np.maximum(squares - total**2 / weight, 0.0), most)


def _places(starts: Floats, ends: Floats, clusters: int) -> Indices:
    """Where the slices of the best clusters end, from 0 on. Number k (of 0, 1, …) ends at k + 1 or up to `wide` - 1 later."""
    wide = starts.shape[1] - clusters
    best = _errors(starts[:, :1], ends[:, 1 : wide + 1])
    origins = [np.zeros(wide, dtype=np.int64)]
    for k in range(1, clusters):
        here = starts[:, k : k + wide].copy(), ends[:, k + 1 : k + 1 + wide].copy()
        nearest = np.append(origins[-1][1:], origins[-1][-1])  # the same end is one place later there
        lowest = np.maximum(nearest - 1, 0)
        if k < clusters - 1:
            best, origin = _add_cluster(best, *here, lowest)
        else:  # the last one ends at the end
            end = np.array([wide - 1])
            origin = np.full(wide, _least(best, *here, end, lowest[end], end)[1])
        origins.append(origin)
    places, later = [], wide - 1
    for k in reversed(range(clusters)):
        places.append(k + 1 + later)
        later = int(origins[k][later])
    return np.array([0, *places[::-1]])


def _add_cluster(before: Floats, starts: Floats, ends: Floats, lowest: Indices) -> tuple[Floats, Indices]:
    """The least errors with one more cluster, and where it begins: of those that end at j, at `lowest` to j."""
    wide = len(before)
    best = np.empty(wide)
    step = 1 << wide.bit_length()
    bounds = np.full(step + 1, wide - 1)  # where it begins, one place later
    bounds[0] = 0
    while step > 1:
        half = step // 2
        j = np.arange(half - 1, wide, step)
        low, high = bounds[:-1:step][: len(j)], bounds[step::step][: len(j)]
        best[j], bounds[j + 1] = _least(
            before, starts, ends, j, np.maximum(low, lowest[j]), np.minimum(high, j)
        )
        step = half
    return best, bounds[1 : wide + 1]


def _least(
    before: Floats, starts: Floats, ends: Floats, j: Indices, low: Indices, high: Indices
) -> tuple[Floats, Indices]:
    """For each j the least sum over i in [low, high], and that i."""
    lengths = high - low + 1
    after = lengths.cumsum()
    first = after - lengths
    i = np.arange(after[-1]) + (low - first).repeat(lengths)
    slices = _errors(starts.take(i, axis=1), ends.take(j.repeat(lengths), axis=1))
    errors = before.take(i) + slices
    least = np.minimum.reduceat(errors, first)
    places = (errors == least.repeat(lengths)).nonzero()[0]
    return least, i[places[places.searchsorted(first)]]
