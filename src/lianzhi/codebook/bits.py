"""How many bits the codes of each layer have: a number, patterns of names, or searched under an accuracy budget."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from lianzhi.codebook.sharing import share_values
from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.measure.metric import one_number

Number = TypeVar("Number", int, float)
Shared = Callable[[torch.Tensor, int], torch.Tensor]  # a weight with so many bits


def bits_by_name(
    names: Iterable[str],
    bits: Number | Mapping[str, Number],
    *,
    also: Mapping[str, Sequence[str]] | None = None,
    option: str = "bits",
) -> dict[str, Number]:
    """The bits of each weight: the number, or that of the first pattern that fits the weight's or its layer's name.

    >>> bits_by_name(["conv1.weight", "fc1.weight"], {"conv*": 8, "*": 5})
    {'conv1.weight': 8, 'fc1.weight': 5}

    `also` gives all names of a tied weight by the one in `names`; a pattern that fits any of them fits the weight.

    >>> bits_by_name(["embed.weight"], {"head": 4}, also={"embed.weight": ["embed.weight", "head.weight"]})
    {'embed.weight': 4}

    A weight that no pattern fits has no bits, and is not shared. Raises `RecipeError`, which names the `option`, for a
    pattern that fits none, or stands behind ``*``, and for no pattern at all.
    """
    names = list(names)
    if not isinstance(bits, Mapping):
        return dict.fromkeys(names, bits)
    if not bits:
        raise RecipeError(f"{option}: no pattern is given; name some layers, or give one number for all")
    patterns = list(bits)
    behind = patterns[patterns.index("*") + 1 :] if "*" in bits else []
    if behind:
        raise RecipeError(f"{option}: '{behind[0]}' stands behind '*', which takes all weights; put '*' last")
    found: dict[str, Number] = {}
    used = set()
    owned: dict[str, Sequence[str]] = {name: (also or {}).get(name, [name]) for name in names}
    known = {name: _known(own) for name, own in owned.items()}
    exact = {pattern for pattern in bits if any(pattern in named for named in known.values())}
    for name in names:
        for pattern, number in bits.items():
            if pattern in known[name] if pattern in exact else _fits(pattern, known[name]):
                used.add(pattern)
                found.setdefault(name, number)
    for pattern in bits:
        if pattern not in used:
            every = [one for own in owned.values() for one in own]
            raise RecipeError(f"{option}: '{pattern}' fits no weight{did_you_mean(pattern, every)}")
    return found


def _known(names: Sequence[str]) -> list[str]:
    """Names by which patterns may call a weight: its own, and its layer's."""
    return [*names, *(name.rpartition(".")[0] for name in names)]


def _fits(pattern: str, names: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(one, pattern) for one in names)


def search_bits(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    evaluate: Callable[[nn.Module], float],
    max_drop: float,
    *,
    most: int = 8,
    least: int = 1,
    init: str = "linear",
    groups: int = 1,
    seed: int = 0,
) -> dict[str, int]:
    """The fewest bits for each weight such that the metric falls by `max_drop` at most, without training.

    All begin with `most` bits. What it costs to share one layer alone with each smaller number is measured; then one bit
    after another goes where the cost a saved bit is least, and the longest run of such steps that stays in the budget,
    measured on the whole model, is found by bisection.

    >>> net = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False))
    >>> weights = {"0.weight": net[0].weight, "1.weight": net[1].weight}
    >>> before = net[0].weight.detach().clone()
    >>> only_the_first_counts = lambda model: -float((model[0].weight.detach() - before).abs().mean())
    >>> found = search_bits(net, weights, only_the_first_counts, 0.01, most=5)
    >>> found["1.weight"], found["0.weight"] > 1
    (1, True)

    ``evaluate(model)`` gives one number, more is better, of data that is not reported; `model` has its weights back
    afterwards. `init`, `groups` and `seed` are those with which `share` is called then. Raises `RecipeError` for a budget that
    `most` bits miss, or bits outside of 1 to 16.
    """
    if not 1 <= least <= most <= 16 or not max_drop >= 0:
        raise RecipeError(
            f"bits from {least} to {most}, max_drop={max_drop}: give 1 to 16 bits, and a drop of 0 or more"
        )
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def shared(value: torch.Tensor, bits: int) -> torch.Tensor:
        return share_values(value, bits, init=init, groups=max(1, min(groups, len(value))), seed=seed)

    try:
        base = one_number(evaluate(model))
        costs = {name: _costs(model, weights[name], evaluate, base, most, least, shared) for name in weights}
        order = _order(costs, {name: weight.numel() for name, weight in weights.items()}, most)

        def drop(steps: int) -> float:
            _put(weights, before, _after(order[:steps], weights, most), shared)
            return base - one_number(evaluate(model))

        if drop(0) > max_drop:
            raise RecipeError(
                f"max_drop={max_drop} cannot be met: with {most} bits everywhere the metric falls by {drop(0):.4f}; allow more"
            )
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if drop(middle) <= max_drop else (low, middle - 1)
        return _after(order[:low], weights, most)
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def _costs(
    model: nn.Module,
    weight: nn.Parameter,
    evaluate: Callable[[nn.Module], float],
    base: float,
    most: int,
    least: int,
    shared: Shared,
) -> dict[int, float]:
    """What sharing one weight costs, for each number of bits; fewer never cost less."""
    before = weight.detach().clone()
    found, worst = {}, 0.0
    for bits in range(most, least - 1, -1):
        _put({"": weight}, {"": before}, {"": bits}, shared)
        worst = max(worst, base - one_number(evaluate(model)))
        found[bits] = worst
    with torch.no_grad():
        weight.copy_(before)
    return found


def _order(costs: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], most: int) -> list[str]:
    """Which weight loses a bit first, second, …: always the one of the least cost a saved bit."""
    bits = dict.fromkeys(costs, most)
    order: list[str] = []
    while True:
        prices = {
            name: (costs[name][number - 1] - costs[name][number]) / max(1, sizes[name])
            for name, number in bits.items()
            if number - 1 in costs[name]
        }
        if not prices:
            return order
        # of equal prices the largest saving goes first
        name = min(prices, key=lambda item: (prices[item], -sizes[item], item))
        bits[name] -= 1
        order.append(name)


def _after(order: list[str], weights: Iterable[str], most: int) -> dict[str, int]:
    return {name: most - order.count(name) for name in weights}


@torch.no_grad()
def _put(
    weights: Mapping[str, nn.Parameter],
    values: Mapping[str, torch.Tensor],
    bits: Mapping[str, int],
    shared: Shared,
) -> None:
    for name, weight in weights.items():
        weight.copy_(shared(values[name], bits[name]))
