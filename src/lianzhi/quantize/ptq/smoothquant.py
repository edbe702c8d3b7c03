"""SmoothQuant (2211.10438): outliers in what linear layers read move into their weights, where they cost less.

``s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)``; the norm before the layers is divided by s, their columns are
multiplied by it, so that ``(x / s) (W s)^T`` is what it was. ``max|W_j|`` is over all layers that read the norm.
As in the authors' code only what norms give takes the factor; here any LayerNorm or RMSNorm is found in the graph. One that
something else reads too (the residual stream of a BERT) stays as it is, and one product before the layers divides by s.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, fx

from lianzhi.graph import TracedModule
from lianzhi.quantize.calibrate import watch
from lianzhi.quantize.ptq.following import after_norms, weight_tensor
from lianzhi.quantize.ptq.technique import REWRITE, Skipped, TechniqueConfig, registry
from lianzhi.quantize.scheme import Schemes


class Smoothquant(TechniqueConfig):
    """`alpha`: how much of the outliers the weights take, 0.5 to 0.95 in the paper."""

    stage: ClassVar[int] = REWRITE
    alpha: float = Field(default=0.5, ge=0, le=1)


@registry.register(
    "smoothquant",
    "outliers move from activations into weights, in transformers",
    paper="2211.10438",
    config=Smoothquant,
)
def apply(
    module: TracedModule,
    weighted: list[fx.Node],
    batches: list[Any],
    options: Smoothquant,
    schemes: Schemes | None = None,
) -> Skipped:
    """Scale all norms and the linear layers behind them, in place; what the module computes stays the same."""
    groups, skipped = after_norms(module, weighted)
    largest: dict[fx.Node, Tensor] = {}

    def keep(node: fx.Node, values: Tensor) -> None:
        seen = values.abs().flatten(0, -2).amax(0)
        largest[node] = torch.maximum(largest.get(node, seen), seen)

    watch(module, [group.source for group in groups], batches, keep)
    for group in groups:
        weights = torch.stack([weight_tensor(module, node).abs().amax(0) for node in group.readers]).amax(0)
        group.scale_(module, smoothquant(largest[group.source], weights, options.alpha))
    return skipped


def smoothquant(inputs: Tensor, weights: Tensor, alpha: float = 0.5) -> Tensor:
    """The factors s of the largest magnitudes of what is read and of the columns that read it.

    >>> smoothquant(torch.tensor([16.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 2.0]))
    tensor([4.0000, 0.5000, 1.0000])
    """
    usable = (inputs > 0) & (weights > 0)
    one = torch.ones_like(inputs)
    factor = inputs.where(usable, one) ** alpha / weights.where(usable, one) ** (1 - alpha)
    return factor.clamp(1e-5, 1e5)
