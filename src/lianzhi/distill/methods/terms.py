"""A loss of several terms, logged without and with their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lianzhi.config import Config


def weighted(parts: Mapping[str, tuple[float, Tensor]]) -> dict[str, Any]:
    """What a step returns: the sum of weight · term, and each term as `x` and `x_weighted`.

    >>> import torch
    >>> result = weighted({"soft": (0.5, torch.tensor(4.0)), "hard": (1.0, torch.tensor(1.0))})
    >>> result["loss"].item(), sorted(result["terms"])
    (3.0, ['hard', 'hard_weighted', 'soft', 'soft_weighted'])
    """
    sums = {name: weight * value for name, (weight, value) in parts.items()}
    terms = {name: value.detach() for name, (_, value) in parts.items()}
    terms |= {f"{name}_weighted": value.detach() for name, value in sums.items()}
    values = list(sums.values())
    return {"loss": sum(values[1:], values[0]), "terms": terms}


def require_some(weights: Mapping[str, float], where: str = "") -> None:
    """Raise `ValueError` where all weights are 0: a loss of nothing trains nothing.

    >>> require_some({"soft": 0.0, "hard": 0.0}, "stage 'hint': ")
    Traceback (most recent call last):
        ...
    ValueError: stage 'hint': soft and hard are all 0; at least one must be above 0
    """
    if not any(weights.values()):
        *first, last = weights
        if not first:
            raise ValueError(f"{where}{last} is 0; it must be above 0")
        raise ValueError(f"{where}{', '.join(first)} and {last} are all 0; at least one must be above 0")


def require_unset(options: Config, why: str, *names: str) -> None:
    """Raise `ValueError` where an option that counts for nothing has another value than its default.

    >>> class Options(Config):
    ...     soft: float = 0.0
    ...     temperature: float = 4.0
    >>> require_unset(Options(temperature=8.0), "is of the soft loss, and 'soft' is 0", "temperature")
    Traceback (most recent call last):
        ...
    ValueError: 'temperature' is of the soft loss, and 'soft' is 0; leave it out
    """
    fields = type(options).model_fields
    for name in names:
        if getattr(options, name) != fields[name].default:
            raise ValueError(f"'{name}' {why}; leave it out")


def grown(number: int, total: int, warmup: float) -> float:
    """How much of a weight counts in update `number` (from 0) of `total`: it grows from 0 over the share `warmup`.

    >>> [grown(number, 240, 1 / 12) for number in (0, 5, 20, 239)], grown(0, 240, 0.0)
    ([0.0, 0.25, 1.0, 1.0], 1.0)
    """
    return min(1.0, number / (warmup * total)) if warmup else 1.0
