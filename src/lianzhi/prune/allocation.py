"""Allocation by sensitivity: how much each group loses so that the predicted drop is least, under a budget.

Each group may lose a share on a grid; its predicted drop is what `sensitivity` measured, its saving what the
budgeted quantity loses if it alone is pruned. Choosing one share a group is a multiple-choice knapsack, which is
solved exactly (on savings counted in 4096ths of the whole). Savings of neighbouring layers overlap, so that the
sum of savings promises more than the pruned model gives: the demand is raised, by bisection on the true count,
until the budget is met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lianzhi.errors import RecipeError
from lianzhi.prune.selection import Limits, Selection, Size, keep_best, kept_count
from lianzhi.prune.sensitivity import Sensitivity

if TYPE_CHECKING:
    from lianzhi.prune.scoring import Scored

GRID, RESOLUTION = 20, 4096


def knapsack(
    drops: Sequence[Sequence[float]], savings: Sequence[Sequence[int]], needed: int
) -> list[int] | None:
    """One choice an item, such that the savings reach `needed` and the drops are least; None if none does.

    >>> knapsack([[0.0, 0.3], [0.0, 0.1, 0.5]], [[0, 4], [0, 2, 5]], 4)
    [1, 0]
    >>> knapsack([[0.0, 0.3], [0.0, 0.1, 0.2]], [[0, 4], [0, 2, 5]], 4)
    [0, 2]
    """
    needed = max(0, needed)
    best = np.full(
        needed + 1, math.inf
    )  # best[s]: the least drop of the items so far that save s, or at least `needed`
    best[0] = 0.0
    choices = []
    for row, gains in zip(drops, savings, strict=True):
        new, chosen = np.full(needed + 1, math.inf), np.zeros(needed + 1, dtype=np.int64)
        came = np.zeros(needed + 1, dtype=np.int64)
        for option, (drop, gain) in enumerate(zip(row, gains, strict=True)):
            shift = min(int(gain), needed)
            moved, origin = np.full(needed + 1, math.inf), np.zeros(needed + 1, dtype=np.int64)
            moved[shift:], origin[shift:] = best[: needed + 1 - shift] + drop, np.arange(needed + 1 - shift)
            tail = best[needed - shift :] + drop  # all of these reach the end
            moved[needed], origin[needed] = tail.min(), needed - shift + int(tail.argmin())
            better = moved < new
            new[better], chosen[better], came[better] = moved[better], option, origin[better]
        best = new
        choices.append((chosen, came))
    if not math.isfinite(best[needed]):
        return None
    place, picked = needed, []
    for chosen, came in reversed(choices):
        picked.append(int(chosen[place]))
        place = int(came[place])
    return picked[::-1]


def polynomial(points: Sequence[tuple[float, float]], at: float) -> float:
    """Lagrange's interpolation. What a group costs is at most quadratic in its width: it can be input and output.

    >>> polynomial([(1, 1), (2, 4), (3, 9)], 4)
    16.0
    """
    total = 0.0
    for here, value in points:
        total += value * math.prod((at - other) / (here - other) for other, _ in points if other != here)
    return total


def select_by_sensitivity(
    scored: Scored, sizes: Sequence[Size], sensitivity: Sensitivity, name: str, amount: float, limits: Limits
) -> Selection:
    """The best units of each group, as many as the knapsack leaves, with at most the budget remaining."""
    groups = scored.groups
    missing = [group.name for group in groups if group.name not in sensitivity.values]
    wrong = [group.name for group in groups if sensitivity.units.get(group.name, len(group)) != len(group)]
    if missing or wrong:
        raise RecipeError(
            f"the sensitivity is of another model or another choice of layers: it lacks {', '.join(missing[:5]) or 'none'}, "
            f"and has another width for {', '.join(wrong[:5]) or 'none'}; measure it anew"
        )
    counts, drops = [], []
    for group, size in zip(groups, sizes, strict=True):
        total, most = len(group), sensitivity.ratios[-1]
        shares = [most * step / GRID for step in range(GRID + 1)]
        kept = sorted(
            {
                kept_count(total, round(total * (1 - share)), limits, size.width, size.dense)
                for share in shares
            },
            reverse=True,
        )
        kept = [count for count in kept if 1 - count / total <= most + 1e-9] or [total]
        counts.append(kept)
        drops.append([sensitivity.drop(group.name, 1 - count / total) for count in kept])

    def selection(picked: Sequence[int]) -> Selection:
        wanted = [row[choice] for row, choice in zip(counts, picked, strict=True)]
        return keep_best(scored.scores, sizes, wanted, limits)

    def remaining(found: Selection) -> float:
        if name == "ratio":
            return found.kept / sum(map(len, groups))
        return scored.plan.share_left(name, groups, found.keeps)

    budget = 1 - amount if name == "ratio" else amount
    tightest = selection([len(row) - 1 for row in counts])
    if remaining(tightest) > budget + 1e-12:
        raise RecipeError(
            f"{name}={amount} cannot be met: the sensitivity was measured up to a ratio of {sensitivity.ratios[-1]}, "
            f"and with all groups there {remaining(tightest):.3f} remain; measure larger ratios, or ask for less"
        )
    savings: list[list[int]] = []
    for index, row in enumerate(counts):
        ends = sorted({0, len(row) // 2, len(row) - 1})
        alone = [remaining(selection([end if i == index else 0 for i in range(len(counts))])) for end in ends]
        known = [(row[end], alone[0] - share) for end, share in zip(ends, alone, strict=True)]
        savings.append([math.floor(polynomial(known, count) * RESOLUTION + 1e-6) for count in row])
    low, high, best = 0, sum(max(row) for row in savings), tightest
    while low <= high:
        middle = (low + high) // 2
        picked = knapsack(drops, savings, middle)
        trial = None if picked is None else selection(picked)
        if trial is None or remaining(trial) <= budget + 1e-12:
            high = middle - 1
            best = best if trial is None else trial
        else:
            low = middle + 1
    return best
