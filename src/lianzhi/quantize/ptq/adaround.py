"""AdaRound (2004.10568): learn for each weight whether it is rounded up or down.

``W~ = s (floor(W / s) + h(V))`` with ``h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)`` minimises
``|W x - W~ x^|^2 + lambda sum(1 - |2 h(V) - 1|^beta)``, where x^ is the input with all errors made so far.
The authors draw mini-batches and put the error through the activation function. Without that the error is a
quadratic form of the inputs' second moments, so they are computed once, and each step sees all data.
At the end single weights are turned over, in each row the one that gains most, while that lowers the error:
learning alone stops at a point where it would. A weight that is zero was pruned, and is not rounded up.
The error is divided by that of rounding to the nearest, so that `regularization` means the same in each layer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.ptq.grams import as_matrix, columns, groups_of, obstacle, second_moment
from lianzhi.quantize.ptq.technique import ROUND, Skipped, TechniqueConfig, registry
from lianzhi.quantize.ptq.walk import Layer, layers, weight_of

LOW, HIGH = -0.1, 1.1  # the sigmoid is stretched to these, so that it reaches 0 and 1
WARM_UP = 0.2  # share of the steps without regularization
BETA = (20.0, 2.0)


class Adaround(TechniqueConfig):
    """`steps` of Adam at rate `lr`; `regularization`: how hard h(V) is pushed to 0 or 1."""

    stage: ClassVar[int] = ROUND
    steps: int = Field(default=200, ge=1)
    lr: float = Field(default=0.02, gt=0)
    regularization: float = Field(default=1.0, ge=0)


@registry.register("adaround", "learn to round up or down", paper="2004.10568", config=Adaround)
def apply(
    floating: TracedModule, quantized: TracedModule, batches: list[Any], names: list[str], options: Adaround
) -> Skipped:
    """Round the weights of these ops, in place, from the first to the last."""
    skipped = []
    for layer in layers(floating, quantized, batches, names):
        reason = obstacle(layer.node)
        if reason:
            skipped.append((layer_name(layer.node), reason))
        else:
            round_layer_(quantized, layer, options)
    return skipped


def round_layer_(quantized: TracedModule, layer: Layer, options: Adaround) -> None:
    """Round the weight of one op, in place."""
    weight = weight_of(quantized, layer.node)
    values = get_tensor(quantized, weight.name)
    groups = groups_of(layer.node)
    own, cross = torch.zeros(1), torch.zeros(1)
    for batch, exact in zip(layer.inputs, layer.exact, strict=True):
        seen = columns(layer.node, batch, values)
        own = own + second_moment(seen, seen)
        cross = cross + second_moment(columns(layer.node, exact, values), seen)
    matrix = as_matrix(values.detach(), groups)
    rounded = adaround(
        matrix,
        own,
        cross,
        weight.scale_of(matrix),
        weight.qmin,
        weight.qmax,
        **options.to_dict(),
    )
    with torch.no_grad():
        values.copy_(rounded.reshape(values.shape))


def adaround(
    weight: Tensor,
    own: Tensor,
    cross: Tensor,
    scale: Tensor,
    qmin: int,
    qmax: int,
    *,
    steps: int = 200,
    lr: float = 0.02,
    regularization: float = 1.0,
) -> Tensor:
    """Weights, each rounded up or down to the grid, whose product with the input is close to that of `weight`.

    >>> weight, moments = torch.tensor([[[0.4, 0.4]]]), torch.ones(1, 2, 2)  # two equal inputs
    >>> float(adaround(weight, moments, moments, torch.tensor([[1.0]]), -7, 7).sum())  # 0.8, not 0
    1.0

    `weight` is ``(groups, out, features)``; `own`, the sum of ``x^ x^T``, and `cross`, the sum of ``x x^T`` with
    the exact x on its left, are ``(groups, features, features)``; `scale` is ``(groups, out)``, or
    ``(groups, out, features)`` where the features have scales of their own. Zeros of `weight` stay zeros.
    """
    step = (scale[:, :, None] if scale.dim() == 2 else scale).float().expand_as(weight)
    ratio = weight.float() / step
    floor = ratio.floor()
    free = weight != 0
    nearest = ratio.round().clamp(qmin, qmax) * step
    own, wanted = own.float(), weight.float() @ cross.float()

    def error(values: Tensor) -> Tensor:
        return ((values @ own - 2 * wanted) * values).sum()

    exact = error(weight.float())
    unit = (error(nearest) - exact).clamp(min=torch.finfo(torch.float32).tiny)
    choice = undecided(ratio - floor).requires_grad_()
    optimizer = torch.optim.Adam([choice], lr=lr)
    for index in range(steps):
        with torch.enable_grad():
            up = raised(choice) * free
            loss = (error((floor + up).clamp(qmin, qmax) * step) - exact) / unit
            loss = loss + regularization * penalty(up, index / steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    up = (choice.detach() >= 0) & free
    result = _polish((floor + up).clamp(qmin, qmax), (floor, floor + free), step, own, wanted, (qmin, qmax))
    better = error(result) <= error(nearest)
    return (result if better else nearest).to(weight.dtype)


def undecided(share: Tensor) -> Tensor:
    """V of which h(V) is the share of a step that a weight lies above its floor."""
    return torch.logit(((share - LOW) / (HIGH - LOW)).clamp(1e-4, 1 - 1e-4))


def raised(choice: Tensor) -> Tensor:
    """h(V): 0 is down, 1 is up.

    >>> raised(torch.tensor([-9.0, 0.0, 9.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (torch.sigmoid(choice) * (HIGH - LOW) + LOW).clamp(0, 1)


def penalty(up: Tensor, progress: float) -> Tensor:
    """The mean of ``1 - |2 h(V) - 1|^beta``, after a warm-up; `progress` goes from 0 to 1."""
    if progress < WARM_UP:
        return torch.zeros(())
    beta = BETA[0] + (BETA[1] - BETA[0]) * (progress - WARM_UP) / (1 - WARM_UP)
    return (1 - (2 * up - 1).abs() ** beta).mean()


def _polish(
    integers: Tensor,
    ends: tuple[Tensor, Tensor],
    step: Tensor,
    own: Tensor,
    wanted: Tensor,
    bounds: tuple[int, int],
) -> Tensor:
    """Turn single weights over between their two `ends` while that lowers the error.

    Turning weight j of a row by d adds ``2 d (W~ S - C)_j + d^2 S_jj`` to the row's error.
    """
    diagonal = own.diagonal(dim1=1, dim2=2)[:, None]
    slope = (integers * step) @ own - wanted
    for _ in range(2 * integers.shape[2]):
        turned = (ends[0] + ends[1] - integers).clamp(*bounds)
        change = (turned - integers) * step
        gain = 2 * change * slope + change.square() * diagonal
        value, place = gain.min(2, keepdim=True)
        moves = value < -1e-6 * (change.gather(2, place) * slope.gather(2, place)).abs()
        if not moves.any():
            break
        moved = torch.where(moves, change.gather(2, place), torch.zeros_like(value))
        integers = integers.scatter_add(2, place, moved / step.gather(2, place))
        rows = own.gather(1, place.expand(-1, -1, own.shape[2]))
        slope = slope + moved * rows
    return integers.round() * step
