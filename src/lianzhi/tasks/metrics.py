"""Shares of right answers, in 0–1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lianzhi.tasks.outputs import logits_of

Metric = Callable[[Any, Any], float]


def top1(outputs: Any, labels: Tensor) -> float:
    """The share of samples whose largest output is their label's.

    >>> import torch
    >>> top1(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """
    return float((logits_of(outputs).argmax(1) == labels).double().mean())


def top5(outputs: Any, labels: Tensor) -> float:
    """The share of samples whose label is among the five largest outputs.

    >>> import torch
    >>> top5(torch.arange(7.0)[None], torch.tensor([2])), top5(torch.arange(7.0)[None], torch.tensor([1]))
    (1.0, 0.0)
    """
    logits = logits_of(outputs)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


def default_metrics(num_classes: int | None) -> dict[str, Metric]:
    """Top-1, and top-5 where there are more than five classes.

    >>> list(default_metrics(10)), list(default_metrics(3))
    (['top1', 'top5'], ['top1'])
    """
    return {"top1": top1, "top5": top5} if num_classes is not None and num_classes > 5 else {"top1": top1}
