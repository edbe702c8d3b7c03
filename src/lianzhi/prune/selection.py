"""From scores to the channels that stay: scope, limits, rounding, and budgets met by search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lianzhi.errors import RecipeError


@dataclass(frozen=True)
class Limits:
    """What no selection may break."""

    round_to: int = 1
    min_channels: int = 1
    max_layer_ratio: float = 0.9

    def __post_init__(self) -> None:
        for name in ("round_to", "min_channels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise RecipeError(f"{name}={value!r}: a whole number of at least 1")
        if not isinstance(self.max_layer_ratio, (int, float)) or not 0 < self.max_layer_ratio <= 1:
            raise RecipeError(f"max_layer_ratio={self.max_layer_ratio!r}: a share above 0 and at most 1")


@dataclass(frozen=True)
class Size:
    """What selection knows of a group: channels a unit, units it had before pruning began, and its structure."""

    width: int = 1
    dense: int | None = None
    structure: Any = None


def least_kept(total: int, limits: Limits, width: int = 1, dense: int | None = None) -> int:
    """The fewest units that stay of a group of `total` units of `width` channels, which had `dense` at first.

    >>> least_kept(64, Limits()), least_kept(8, Limits(min_channels=3)), least_kept(8, Limits(min_channels=3), width=2)
    (7, 3, 2)
    >>> least_kept(32, Limits(), dense=64)
    7
    """
    share = math.ceil((dense or total) * (1 - limits.max_layer_ratio) - 1e-9)
    return min(total, max(1, math.ceil(limits.min_channels / width), share))


def kept_count(total: int, wanted: int, limits: Limits, width: int = 1, dense: int | None = None) -> int:
    """How many of `total` units stay if `wanted` are to stay, within the limits.

    The nearest number whose channels are a multiple of `round_to`; all, where that is more than there are.

    >>> kept_count(64, 27, Limits(round_to=8)), kept_count(64, 2, Limits()), kept_count(6, 1, Limits(round_to=8))
    (24, 7, 6)
    >>> kept_count(32, 13, Limits(round_to=8), width=4)
    14
    """
    if wanted >= total:
        return total
    least = least_kept(total, limits, width, dense)
    step = limits.round_to // math.gcd(limits.round_to, width)
    kept = max(step, int(max(wanted, least) / step + 0.5) * step)
    while kept < least:
        kept += step
    return min(total, kept)


def wanted_by_layer(scores: Sequence[Tensor], ratio: float, structures: Sequence[Any] = ()) -> list[int]:
    """The same ratio in every group: how many units of each are to stay.

    >>> wanted_by_layer([torch.arange(8.0), torch.arange(4.0)], 0.25)
    [6, 3]
    """
    return [round(len(score) * (1 - ratio)) for score in scores]


def wanted_globally(scores: Sequence[Tensor], ratio: float, structures: Sequence[Any] = ()) -> list[int]:
    """One ranking over all groups; the lowest `ratio` of all units goes.

    >>> wanted_globally([torch.arange(4.0), torch.full((4,), 9.0)], 0.5)
    [0, 4]
    """
    everything = torch.cat(list(scores))
    order = torch.argsort(everything, stable=True)
    stay = torch.ones(len(everything), dtype=torch.bool)
    stay[order[: round(len(everything) * ratio)]] = False
    return [int(part.sum()) for part in stay.split([len(score) for score in scores])]


def wanted_by_structure(scores: Sequence[Tensor], ratio: float, structures: Sequence[Any]) -> list[int]:
    """One ranking over the groups of each structure: isomorphic pruning, 2407.04616.

    Scores of layers that are built alike can be compared; those of a depthwise and of a dense convolution cannot.

    >>> wanted_by_structure([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([9.0, 8.0])], 0.5, "aab")
    [0, 2, 1]
    """
    wanted = [0] * len(scores)
    for structure in dict.fromkeys(structures):
        same = [index for index, other in enumerate(structures) if other == structure]
        for index, count in zip(same, wanted_globally([scores[index] for index in same], ratio), strict=True):
            wanted[index] = count
    return wanted


SCOPES: dict[str, Callable[[Sequence[Tensor], float, Sequence[Any]], list[int]]] = {
    "global": wanted_globally,
    "layer": wanted_by_layer,
    "isomorphic": wanted_by_structure,
}


@dataclass(frozen=True)
class Selection:
    """For each group the units that stay, and how many would have stayed without the limits."""

    keeps: list[Tensor]
    wanted: list[int]

    @property
    def kept(self) -> int:
        """How many units stay in all."""
        return sum(int(keep.sum()) for keep in self.keeps)


def select(
    scores: Sequence[Tensor], sizes: Sequence[Size], scope: str, ratio: float, limits: Limits
) -> Selection:
    """Keep the best of each group, as many as scope, ratio and limits say.

    `scores` holds one number a unit; both have one entry a group.

    >>> select([torch.tensor([3.0, 1.0, 2.0, 4.0])], [Size()], "layer", 0.5, Limits()).keeps
    [tensor([ True, False, False,  True])]
    """
    wanted = SCOPES[scope](scores, ratio, [size.structure for size in sizes])
    return keep_best(scores, sizes, wanted, limits)


def keep_best(
    scores: Sequence[Tensor], sizes: Sequence[Size], wanted: Sequence[int], limits: Limits
) -> Selection:
    """Keep the best of each group, as many as are wanted and the limits allow."""
    keeps = [
        _keep_best(score, kept_count(len(score), want, limits, size.width, size.dense))
        for score, want, size in zip(scores, wanted, sizes, strict=True)
    ]
    return Selection(keeps, list(wanted))


def select_to_budget(
    at: Callable[[float], Selection],
    remaining: Callable[[list[Tensor]], float],
    scores: Sequence[Tensor],
    budget: float,
    name: str,
    limits: Limits,
) -> Selection:
    """The smallest ratio at which at most `budget` is left, found by bisection, and what can be given back.

    `at` selects for a ratio; `remaining` gives the share that a selection leaves of the quantity `name`. Where
    many groups cross a rounding step at the same ratio, the bisection ends far below the budget: the groups
    that it cut last are given back one at a time, as long as the budget holds.
    """
    best = at(1.0)
    least = remaining(best.keeps)
    if least > budget:
        possible = math.ceil(least * 1000) / 1000
        mend = (
            f"ask for {name}={possible:.3f} or more, or loosen" if possible < 1 else "nothing can go: loosen"
        )
        raise RecipeError(
            f"{name}={budget} cannot be met: {least:.3f} is the least that max_layer_ratio {limits.max_layer_ratio}, "
            f"min_channels {limits.min_channels} and round_to {limits.round_to} leave; {mend} these limits"
        )
    low, high, over = 0.0, 1.0, at(0.0)
    for _ in range(24):
        middle = (low + high) / 2
        trial = at(middle)
        if remaining(trial.keeps) <= budget:
            high, best = middle, trial
        else:
            low, over = middle, trial
    return _given_back(best, over, scores, lambda keeps: remaining(keeps) <= budget)


def _given_back(
    under: Selection, over: Selection, scores: Sequence[Tensor], fits: Callable[[list[Tensor]], bool]
) -> Selection:
    """`under` with the groups of `over` that fit, those first whose regained units rank highest in their group."""
    keeps, wanted = list(under.keeps), list(under.wanted)
    worth = {}
    for index, (score, less, more) in enumerate(zip(scores, keeps, over.keeps, strict=True)):
        if more.sum() > less.sum():
            regained = score[more & ~less].mean() / score.abs().max().clamp_min(1e-30)
            worth[index] = float(regained)
    for index in sorted(worth, key=lambda index: -worth[index]):
        trial = [over.keeps[index] if place == index else keep for place, keep in enumerate(keeps)]
        if fits(trial):
            keeps, wanted[index] = trial, over.wanted[index]
    return Selection(keeps, wanted)


def _keep_best(score: Tensor, count: int) -> Tensor:
    keep = torch.zeros(len(score), dtype=torch.bool)
    keep[torch.argsort(score, descending=True, stable=True)[:count]] = True
    return keep
