"""Units that another one can stand in for: the greedy removal behind `conv_similarity` and `bn_similarity`.

Again and again the two closest of the units that are left are found, and the weaker of them (the smaller norm)
is removed. score(i) = the distance at which unit i went; it cannot fall from one removal to the next, so that
removing the lowest scores is the greedy removal, for every ratio (equal distances are told apart by the last bit). Indices are the original ones throughout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def nearest_neighbour_scores(rows: Tensor) -> Tensor:
    """The distance at which each row goes, (units, features) → (units,); the last one has the largest.

    >>> nearest_neighbour_scores(torch.tensor([[0.0], [1.0], [5.0], [5.5]])).float().tolist()
    [1.0, 4.5, 0.5, 4.5]
    """
    count = len(rows)
    scores = torch.zeros(count, dtype=torch.float64)
    rows = rows.double()
    if count == 1:
        return scores
    distances = torch.cdist(rows, rows)
    distances.fill_diagonal_(math.inf)
    norms = rows.norm(dim=1)
    nearest, partner = distances.min(1)
    last, left = -math.inf, 0
    for _ in range(count - 1):
        one = int(nearest.argmin())
        other = int(partner[one])
        last = max(math.nextafter(last, math.inf), float(nearest[one]))
        gone = one if norms[one] <= norms[other] else other
        scores[gone] = last
        distances[gone], distances[:, gone] = math.inf, math.inf
        nearest[gone] = math.inf
        stale = torch.nonzero((partner == gone) & nearest.isfinite()).reshape(-1)
        if len(stale):
            nearest[stale], partner[stale] = distances[stale].min(1)
        left = one if gone == other else other
    scores[left] = math.nextafter(last, math.inf)
    return scores
