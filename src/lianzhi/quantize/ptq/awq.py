"""AWQ (2306.00978): weights that meet large activations are scaled up before rounding, so that they lose less.

``s_j = mean|x_j|^alpha``, over the root of its largest times its least; of a grid of alphas from 0 to 1 the one with
the least ``|Q(W s) (x / s) - W x|^2`` is taken. What gives x is divided by s: a norm, or a linear layer with nothing
but ReLU or a product between; where a norm is read elsewhere too, one product before the layers divides by s. The authors sample inputs and run a whole block for each alpha; here the error is that
of the linear layers themselves, a quadratic form of the inputs' second moments, over all the data. Their search for
clipped ranges is not part of it: 4-bit scales here are the ones with the least squared error anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, fx

from lianzhi.graph import TracedModule
from lianzhi.quantize.calibrate import watch
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.ptq.following import after_linear, after_norms, weight_tensor
from lianzhi.quantize.ptq.technique import REWRITE, Skipped, TechniqueConfig, registry
from lianzhi.quantize.rows import rounded_weight
from lianzhi.quantize.scheme import Scheme, Schemes

Rounding = Callable[[Tensor], Tensor]


class Awq(TechniqueConfig):
    """`grid`: how many steps of alpha are tried."""

    stage: ClassVar[int] = REWRITE
    grid: int = Field(default=20, ge=1, le=1000)


@registry.register("awq", "weights that meet large activations are scaled up", paper="2306.00978", config=Awq)
def apply(
    module: TracedModule,
    weighted: list[fx.Node],
    batches: list[Any],
    options: Awq,
    schemes: Schemes | None = None,
) -> Skipped:
    """Scale all pairs, in place, from the first to the last; what the module computes stays the same."""
    scheme = schemes.weights if schemes is not None and schemes.weights else Scheme(4, per_channel=True)
    groups, skipped = after_norms(module, weighted)
    groups += after_linear(module, weighted)
    groups.sort(key=lambda group: group.readers[0])
    reached = {layer_name(node) for group in groups for node in group.readers}
    reads: list[Any] = [group.readers[0].args[0] for group in groups]
    seen = _seen(module, reads, batches)
    for group, read in zip(groups, reads, strict=True):
        magnitude, moments = seen[read]
        weights = [weight_tensor(module, node) for node in group.readers]
        group.scale_(
            module,
            awq(weights, magnitude, moments, lambda item: rounded_weight(item, scheme), grid=options.grid),
        )
    return [
        (name, reason.replace("no norm stands", "neither a norm nor a linear layer stands directly"))
        for name, reason in skipped
        if name not in reached
    ]


def awq(
    weights: list[Tensor], magnitude: Tensor, moments: Tensor, rounding: Rounding, *, grid: int = 20
) -> Tensor:
    """The factors s, a value an input, for weights ``(out, in)`` that read the same.

    >>> loud = torch.tensor([10.0, 1.0])  # the first input is ten times the second
    >>> factor = awq([torch.tensor([[0.6, 1.0]])], loud, torch.diag(loud.square()), torch.round)
    >>> bool(factor[0] > factor[1])
    True

    `magnitude` is the mean of ``|x|``, `moments` the sum of ``x x^T``; `rounding` rounds a weight.
    """
    least = float("inf")
    chosen = torch.ones_like(magnitude)
    for index in range(grid + 1):
        factor = (magnitude.clamp(min=1e-4)) ** (index / grid)
        factor = factor / (factor.max() * factor.min()).sqrt()
        error = 0.0
        for weight in weights:
            wrong = (rounding(weight * factor) / factor - weight).double()
            error += float(((wrong @ moments.double()) * wrong).sum())
        if error < least:
            least, chosen = error, factor
    return chosen


def _seen(
    module: TracedModule, reads: list[fx.Node], batches: list[Any]
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """The mean magnitude of each channel that layers read, and the second moments."""
    sums: dict[fx.Node, tuple[Tensor, Tensor, int]] = {}

    def keep(node: fx.Node, values: Tensor) -> None:
        rows = values.flatten(0, -2)
        total, moments, count = sums.get(node, (torch.zeros(()), torch.zeros(()), 0))
        sums[node] = (total + rows.abs().sum(0), moments + rows.T @ rows, count + len(rows))

    watch(module, reads, batches, keep)
    return {node: (total / count, moments) for node, (total, moments, count) in sums.items()}
