"""How many weights each layer loses: evenly, by one threshold, by shape, or by what its loss costs.

`erk` (Erdős-Rényi-Kernel, 1911.11134): a layer's density grows with the sum of its dimensions over their product, so that
small layers stay denser. `by_sensitivity`: the metric is measured with one layer at a time pruned to each of some shares, and
weights go where the predicted drop a weight is least until enough are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lianzhi.codebook.masks import each_mask, global_masks, magnitude_mask
from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.measure.metric import one_number

SCOPES = ("global", "layer", "erk")
RATIOS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)

Sparsities = Mapping[str, float]


def masks_for(
    weights: Mapping[str, Tensor], ratio: float, scope: str | Sparsities, *, share: float = 1.0
) -> dict[str, Tensor]:
    """Magnitude masks of all weights, of which the share `ratio` is removed.

    >>> weights = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[3.0, 4.0]])}
    >>> {name: mask.tolist() for name, mask in masks_for(weights, 0.5, "layer").items()}
    {'a': [[False, True]], 'b': [[False, True]]}

    `scope`: ``layer`` (the same share everywhere), ``global`` (one threshold), ``erk``, or a share for each by name, in
    place of `ratio`. With a `share` below 1 only that part is removed: where a schedule is on its way.
    """
    if scope == "global":
        return global_masks(weights, ratio * share)
    if isinstance(scope, str):
        if scope not in SCOPES:
            raise RecipeError(f"scope: '{scope}' is not known{did_you_mean(scope, SCOPES)}")
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        scope = erk(shapes, ratio) if scope == "erk" else dict.fromkeys(weights, ratio)
    shares = scope
    return each_mask(weights, lambda name, weight: magnitude_mask(weight, shares[name] * share))


def erk(shapes: Mapping[str, Sequence[int]], ratio: float) -> dict[str, float]:
    """The share that each layer loses, such that the share `ratio` of all weights goes.

    >>> found = erk({"small": (10, 10), "large": (100, 100)}, 0.85)
    >>> {name: round(share, 2) for name, share in found.items()}
    {'small': 0.0, 'large': 0.86}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / max(1, sizes[name]) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        free = [name for name in shapes if name not in dense]
        left = (1 - ratio) * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = max(0.0, left) / max(1e-300, sum(raw[name] * sizes[name] for name in free))
        full = [name for name in free if raw[name] * factor > 1]
        if not full:
            return {name: 0.0 if name in dense else 1 - raw[name] * factor for name in shapes}
        dense.update(full)


def by_sensitivity(
    model: nn.Module,
    weights: Mapping[str, nn.Parameter],
    ratio: float,
    evaluate: Callable[[nn.Module], float],
    *,
    ratios: Sequence[float] = RATIOS,
) -> dict[str, float]:
    """The share that each layer loses, by measured drops, such that the share `ratio` of all weights goes.

    >>> net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    >>> weights = {"0.weight": net[0].weight, "1.weight": net[1].weight}
    >>> only_the_first_counts = lambda model: float(model[0].weight.detach().abs().sum())
    >>> by_sensitivity(net, weights, 0.5, only_the_first_counts, ratios=(0.5, 0.95))["0.weight"] < 0.1
    True

    ``evaluate(model)`` gives one number, more is better, of data that is not reported. It is called once, and once a layer
    and ratio, on `model` itself, whose weights are back in place afterwards. Raises `RecipeError` where `ratio` is beyond
    the largest of `ratios`.
    """
    points = [0.0, *ratios]
    if any(not low < high for low, high in zip(points, [*ratios, 1.0], strict=True)) or ratio > points[-1]:
        raise RecipeError(
            f"ratios={tuple(ratios)}: shares between 0 and 1, the smallest first, up to {ratio} at least"
        )
    base = one_number(evaluate(model))
    curves = {name: [0.0] for name in weights}
    for name, weight in weights.items():
        before = weight.detach().clone()
        try:
            for share in ratios:
                with torch.no_grad():
                    weight.copy_(before * magnitude_mask(before, share))
                drop = max(0.0, base - one_number(evaluate(model)))
                curves[name].append(max(drop, curves[name][-1]))
        finally:
            with torch.no_grad():
                weight.copy_(before)
    return spend(curves, points, {name: weight.numel() for name, weight in weights.items()}, ratio)


def spend(
    curves: Mapping[str, Sequence[float]], points: Sequence[float], sizes: Mapping[str, int], ratio: float
) -> dict[str, float]:
    """Shares that cost least in sum: layers go up their curves (cost at each of `points`) in order of the cost a weight.

    >>> spend({"a": [0, 0.0, 0.3], "b": [0, 0.1, 0.2]}, [0, 0.5, 1.0], {"a": 100, "b": 100}, 0.5)
    {'a': 0.5, 'b': 0.5}
    """
    needed = ratio * sum(sizes.values())
    at = dict.fromkeys(curves, 0)
    shares = dict.fromkeys(curves, 0.0)

    def best_step(name: str) -> tuple[float, int]:
        """The steepest way on: the least cost a weight over one or several points (the lower hull of the curve)."""
        here, curve = at[name], curves[name]
        steps = range(here + 1, len(points))
        return min(
            ((curve[to] - curve[here]) / ((points[to] - points[here]) * sizes[name]), -to) for to in steps
        )

    while needed > 0.5:
        open_ = [name for name in curves if at[name] < len(points) - 1 and sizes[name]]
        if not open_:
            break
        name = min(open_, key=lambda item: (best_step(item)[0], item))
        to = -best_step(name)[1]
        gain = min(needed, (points[to] - points[at[name]]) * sizes[name])
        shares[name] += gain / sizes[name]
        needed -= gain
        at[name] = to
    return shares
