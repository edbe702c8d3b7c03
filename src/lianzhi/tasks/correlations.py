"""Correlations of a score with the true one, over a whole split: Pearson's, and Spearman's of the ranks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lianzhi.tasks.metrics import Metric
from lianzhi.tasks.outputs import score_of


def pearson(outputs: Any, scores: Tensor) -> float:
    """Pearson's correlation, -1 to 1; 0 where all outputs, or all scores, are alike.

    >>> import torch
    >>> round(pearson(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0])), 4)
    0.982
    """
    return _correlation(score_of(outputs), scores)


def spearman(outputs: Any, scores: Tensor) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal values share their mean rank.

    >>> import torch
    >>> round(spearman(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([1.0, 2.0, 3.0])), 4)
    1.0
    """
    return _correlation(ranks(score_of(outputs)), ranks(scores))


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 on, as float64.

    >>> import torch
    >>> ranks(torch.tensor([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, members, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2.0)[members].double()


def score_metrics() -> dict[str, Metric]:
    """Pearson's correlation first, then Spearman's.

    >>> list(score_metrics())
    ['pearson', 'spearman']
    """
    return {"pearson": pearson, "spearman": spearman}


def _correlation(one: Tensor, two: Tensor) -> float:
    """In float64, bounded by 1 whatever rounding says."""
    one, two = one.double() - one.double().mean(), two.double() - two.double().mean()
    below = one.norm() * two.norm()
    return float((one @ two / below).clamp(-1, 1)) if below > 0 else 0.0
