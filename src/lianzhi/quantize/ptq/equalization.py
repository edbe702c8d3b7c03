"""Cross-layer equalization (1906.04721, section 4.1): the channels of a layer get ranges of like size.

A ReLU passes a positive factor on, so with two layers that follow one another, ``W1 / s``, ``b1 / s`` and ``W2 s``
compute the same; ``s_i = sqrt(r1_i r2_i) / r2_i`` makes both ranges of channel i equal. Pairs are taken from the
first to the last until no factor changes by more than a per cent. The authors also put ReLU in the place of ReLU6,
which changes the network; here a ReLU6 ends a pair.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import LINEAR
from lianzhi.quantize.placement.plan import is_identity
from lianzhi.quantize.ptq.following import HOMOGENEOUS, bias_node, own, weight_tensor
from lianzhi.quantize.ptq.grams import groups_of, obstacle
from lianzhi.quantize.ptq.technique import REWRITE, Skipped, TechniqueConfig, registry
from lianzhi.quantize.scheme import Schemes

SETTLED = 0.01


class Equalization(TechniqueConfig):
    """`rounds`: how often all pairs are gone through, at most."""

    stage: ClassVar[int] = REWRITE
    reads_data: ClassVar[bool] = False
    rounds: int = Field(default=20, ge=1)


@registry.register(
    "equalization", "channels of like range, in ReLU networks", paper="1906.04721", config=Equalization
)
def apply(
    module: TracedModule,
    weighted: list[fx.Node],
    batches: list[Any],
    options: Equalization,
    schemes: Schemes | None = None,
) -> Skipped:
    """Equalize all pairs among these ops, in place; what the module computes stays the same."""
    pairs, skipped = following_pairs(module, weighted)
    for _ in range(options.rounds):
        change = max((_equalize(module, *pair) for pair in pairs), default=0.0)
        if change < SETTLED:
            break
    return skipped


def equalization(first: Tensor, second: Tensor) -> Tensor:
    """The factors s of two ranges, a value a channel: ``first / s`` equals ``second * s``.

    >>> equalization(torch.tensor([8.0, 1.0, 0.0]), torch.tensor([2.0, 1.0, 3.0]))  # nothing to share: 1
    tensor([2., 1., 1.])
    """
    usable = (first > 0) & (second > 0)
    return torch.where(usable, (first / second.where(usable, torch.ones_like(second))).sqrt(), 1.0)


def following_pairs(
    module: TracedModule, weighted: list[fx.Node]
) -> tuple[list[tuple[fx.Node, fx.Node]], Skipped]:
    """Layers that follow one another with nothing but ReLU and maxima between; the others with the reason."""
    pairs, skipped = [], []
    for second in weighted:
        first: Any = second.args[0]
        while isinstance(first, fx.Node) and len(first.users) == 1:
            if first.target not in HOMOGENEOUS and not is_identity(first):
                break
            first = first.args[0]
        alone = isinstance(first, fx.Node) and first in weighted and len(first.users) == 1
        if not alone:
            skipped.append((layer_name(second), "no layer stands before it with nothing but ReLU between"))
        elif any(obstacle(node) or not own(module, node) for node in (first, second)):
            skipped.append(
                (layer_name(second), "one of the two layers is of another kind, or shares its weight")
            )
        elif _matrix(module, second).shape[0] != weight_tensor(module, first).shape[0]:
            skipped.append((layer_name(second), "its inputs are not the channels of the layer before it"))
        else:
            pairs.append((first, second))
    return pairs, skipped


def _equalize(module: TracedModule, first: fx.Node, second: fx.Node) -> float:
    """Equalize one pair; the largest relative change that it made."""
    weight, other = weight_tensor(module, first), _matrix(module, second)
    factor = equalization(weight.abs().flatten(1).amax(1), other.abs().amax(1))
    with torch.no_grad():
        weight.div_(factor.view(-1, *[1] * (weight.dim() - 1)))
        bias = bias_node(first)
        if isinstance(bias, fx.Node):
            get_tensor(module, str(bias.target)).div_(factor)
        target = weight_tensor(module, second)
        if groups_of(second) == 1:
            target.mul_(factor.view(1, -1, *[1] * (target.dim() - 2)))
        else:  # each group reads its own channels
            per_group = factor.view(groups_of(second), 1, -1).expand(-1, len(target) // groups_of(second), -1)
            target.mul_(per_group.reshape(len(target), -1, *[1] * (target.dim() - 2)))
    return float((factor - 1).abs().max())


def _matrix(module: TracedModule, node: fx.Node) -> Tensor:
    """A weight as (input channels, everything else), the channels of all groups one after another."""
    weight, groups = weight_tensor(module, node), groups_of(node)
    if node.target in LINEAR:
        return weight.T
    split = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return split.transpose(1, 2).reshape(groups * weight.shape[1], -1)
