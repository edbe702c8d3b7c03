"""Bias absorption (1906.04721, section 4.1.3): what a channel always has goes into the bias behind it.

Where ``y = W x + b`` is never under c > 0, ``ReLU(y) = ReLU(y - c) + c``; so b takes ``-c``, and the bias of the next
layer takes ``W2 c``: the values between have a smaller range. After equalization, which can make biases large.
The authors take ``c = max(0, beta - 3 gamma)`` from BatchNorm and accept that some values are under it. Here c is by
default the least value of the calibration data, which changes nothing on them; with `deviations` it is their mean
less so many standard deviations, as in the paper. A next layer that pads with zeros is left as it is, because c would
be missing at the borders.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.calibrate import watch
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import LINEAR
from lianzhi.quantize.ptq.equalization import following_pairs
from lianzhi.quantize.ptq.following import bias_node, weight_tensor
from lianzhi.quantize.ptq.grams import groups_of, pads
from lianzhi.quantize.ptq.technique import REWRITE, Skipped, TechniqueConfig, registry
from lianzhi.quantize.scheme import Schemes

aten = torch.ops.aten
RELU = {aten.relu.default, aten.relu_.default}


class BiasAbsorption(TechniqueConfig):
    """`deviations`: how many standard deviations under the mean c lies; by default at the least value seen."""

    stage: ClassVar[int] = REWRITE
    turn: ClassVar[int] = 1  # after equalization, which can make biases large
    deviations: float | None = Field(default=None, ge=0)


@registry.register(
    "bias_absorption",
    "biases move behind the ReLU, in ReLU networks",
    paper="1906.04721",
    config=BiasAbsorption,
)
def apply(
    module: TracedModule,
    weighted: list[fx.Node],
    batches: list[Any],
    options: BiasAbsorption,
    schemes: Schemes | None = None,
) -> Skipped:
    """Absorb the biases of all pairs among these ops, in place, from the first to the last."""
    pairs, skipped = following_pairs(module, weighted)
    kept = []
    for first, second in pairs:
        reason = _obstacle(first, second)
        if reason:
            skipped.append((layer_name(second), reason))
        else:
            kept.append((first, second))
    seen = _Seen()
    watch(module, [first for first, _ in kept], batches, seen.add)
    for first, second in kept:
        constant = bias_absorption(*seen.of(first), options.deviations)
        with torch.no_grad():
            get_tensor(module, str(bias_node(first).target)).sub_(constant)
            get_tensor(module, str(bias_node(second).target)).add_(_through(module, second, constant))
    return skipped


def bias_absorption(
    mean: Tensor, deviation: Tensor, least: Tensor, deviations: float | None = None
) -> Tensor:
    """The constant c of each channel, of the mean, standard deviation and least value before the ReLU.

    >>> mean, deviation, least = torch.tensor([5.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.5, -1.0])
    >>> bias_absorption(mean, deviation, least), bias_absorption(mean, deviation, least, deviations=3)
    (tensor([1.5000, 0.0000]), tensor([2., 0.]))
    """
    return (least if deviations is None else mean - deviations * deviation).clamp(min=0)


class _Seen:
    """Sums, sums of squares, counts and least values of each channel."""

    def __init__(self) -> None:
        self.sums: dict[fx.Node, tuple[Tensor, Tensor, int, Tensor]] = {}

    def add(self, node: fx.Node, values: Tensor) -> None:
        rows = values.movedim(-1 if node.target in LINEAR else 1, 0).flatten(1).double()
        zero = torch.zeros(len(rows), dtype=torch.float64)
        total, square, count, least = self.sums.get(node, (zero, zero, 0, zero + float("inf")))
        self.sums[node] = (
            total + rows.sum(1),
            square + rows.square().sum(1),
            count + rows.shape[1],
            torch.minimum(least, rows.amin(1)),
        )

    def of(self, node: fx.Node) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation, least value."""
        total, square, count, least = self.sums[node]
        mean = total / count
        deviation = (square / count - mean.square()).clamp(min=0).sqrt()
        return mean.float(), deviation.float(), least.float()


def _obstacle(first: fx.Node, second: fx.Node) -> str:
    """Why nothing can be absorbed, or ""."""
    value: Any = second.args[0]
    between = []
    while value is not first:
        between.append(value.target)
        value = value.args[0]
    if not RELU.intersection(between):
        return "no ReLU stands before it"
    if bias_node(first) is None or bias_node(second) is None:
        return "one of the two layers has no bias"
    if pads(second):
        return "it pads with zeros, which would have to be the constant"
    return ""


def _through(module: TracedModule, node: fx.Node, constant: Tensor) -> Tensor:
    """What a layer gives for channels that are constant."""
    weight, groups = weight_tensor(module, node), groups_of(node)
    summed = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    split = summed.reshape(groups, len(summed) // groups, -1)
    return torch.einsum("goi,gi->go", split, constant.view(groups, -1)).reshape(-1)
