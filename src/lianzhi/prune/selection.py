"""From scores to the channels that go: scope, limits, rounding, and budgets met by search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lianzhi.errors import RecipeError


@dataclass(frozen=True)
class Limits:
    """What no selection may break. `sizes` and `scores` are parallel, one a group."""

    round_to: int = 1
    min_channels: int = 1
    max_layer_ratio: float = 0.9


def kept_count(total: int, wanted: int, limits: Limits) -> int:
    """How many of `total` channels stay if `wanted` are to stay, within the limits.

    The nearest multiple of `round_to`; never below `min_channels` nor below what `max_layer_ratio` leaves,
    never above the total.

    >>> kept_count(64, 27, Limits(round_to=8)), kept_count(64, 2, Limits()), kept_count(6, 1, Limits(round_to=8))
    (24, 7, 6)
    """
    floor = max(1, limits.min_channels, math.ceil(total * (1 - limits.max_layer_ratio) - 1e-9))
    step = limits.round_to
    kept = max(wanted, floor)
    if step > 1:
        kept = max(step, int(kept / step + 0.5) * step)
        while kept < floor:
            kept += step
    return min(total, kept)


def select_by_layer(scores: list[Tensor], ratio: float, limits: Limits) -> list[Tensor]:
    """The same ratio in every group. Returns a boolean a unit: True stays."""
    return [_keep_best(score, kept_count(len(score), round(len(score) * (1 - ratio)), limits)) for score in scores]


def select_globally(scores: list[Tensor], ratio: float, limits: Limits) -> list[Tensor]:
    """One ranking over all groups; the lowest `ratio` of all units goes, as far as the limits allow."""
    everything = torch.cat(scores)
    count = round(len(everything) * ratio)
    order = torch.argsort(everything, stable=True)
    gone = torch.zeros(len(everything), dtype=torch.bool)
    gone[order[:count]] = True
    parts = gone.split([len(score) for score in scores])
    return [
        _keep_best(score, kept_count(len(score), int((~part).sum()), limits))
        for score, part in zip(scores, parts, strict=True)
    ]


SCOPES: dict[str, Callable[[list[Tensor], float, Limits], list[Tensor]]] = {
    "global": select_globally,
    "layer": select_by_layer,
}


def select_to_budget(
    scores: list[Tensor],
    scope: str,
    limits: Limits,
    remaining: Callable[[list[Tensor]], float],
    budget: float,
    name: str,
) -> list[Tensor]:
    """The smallest ratio at which at most `budget` of `remaining` is left, found by bisection.

    `remaining` gives the share that a selection leaves of the quantity `name`.
    """
    select = SCOPES[scope]
    low, high = 0.0, 1.0
    best = select(scores, limits.max_layer_ratio if scope == "layer" else 1.0, limits)
    least = remaining(best)
    if least > budget:
        raise RecipeError(
            f"{name}={budget}: at most {1 - least:.1%} of {name} can go within max_layer_ratio "
            f"{limits.max_layer_ratio}, min_channels {limits.min_channels} and round_to {limits.round_to}, "
            f"which leaves {least:.3f}; raise max_layer_ratio, or ask for {name}={least:.3f} or more"
        )
    for _ in range(30):
        middle = (low + high) / 2
        trial = select(scores, middle, limits)
        if remaining(trial) <= budget:
            high, best = middle, trial
        else:
            low = middle
    return best


def _keep_best(score: Tensor, count: int) -> Tensor:
    keep = torch.zeros(len(score), dtype=torch.bool)
    keep[torch.argsort(score, descending=True, stable=True)[:count]] = True
    return keep
