"""Iterative pruning: how much is gone after each round."""

from __future__ import annotations

from collections.abc import Callable

from lianzhi.errors import RecipeError, did_you_mean

# the part of the whole amount that is reached at a part of the way; the cubic one is of 1710.01878
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cubic": lambda way: 1 - (1 - way) ** 3,
    "linear": lambda way: way,
}


def shares(iterations: int, schedule: str = "cubic") -> list[float]:
    """The part of the whole amount to remove that is removed after each round; the last is 1.

    >>> shares(2), shares(4, "linear")
    ([0.875, 1.0], [0.25, 0.5, 0.75, 1.0])
    """
    if schedule not in SCHEDULES:
        raise RecipeError(f"unknown schedule '{schedule}'{did_you_mean(schedule, SCHEDULES)}")
    if iterations < 1:
        raise RecipeError(f"iterations={iterations}: at least 1")
    return [SCHEDULES[schedule]((index + 1) / iterations) for index in range(iterations)]


def round_budget(name: str, amount: float, share: float, left: float) -> float:
    """The budget of one round for the model as it is, of which `left` is left of what it was at first.

    `amount` is the budget of the whole (a share removed for ``ratio``, else one that remains), `share` the part of
    the removal that this round is to reach. 1 or more: nothing is left to do in this round.

    >>> round(round_budget("macs", 0.5, 0.5, 0.8), 4), round(round_budget("ratio", 0.5, 1.0, 0.75), 4)
    (0.9375, 0.3333)
    """
    whole = amount if name == "ratio" else 1 - amount
    remains = (1 - whole * share) / left
    return 1 - remains if name == "ratio" else remains
