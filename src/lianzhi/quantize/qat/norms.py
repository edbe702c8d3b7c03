"""BatchNorms that training meets: only those that could not be folded into a layer.

A folded BatchNorm is part of its layer's weight and bias; its statistics are those of the float model, and there is
nothing left to freeze. What remains is normalised by the batch until it is frozen, and by its running statistics,
as in deployment, from then on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lianzhi.graph import TracedModule

BATCH_NORM = torch.ops.aten.batch_norm.default


def unfolded_norms(module: TracedModule) -> list[str]:
    """The names of the BatchNorms that are still ops of their own."""
    return [
        str(node.args[3].target).rpartition(".")[0]  # type: ignore[union-attr]
        for node in module.graph.nodes
        if node.target is BATCH_NORM
    ]


def freeze_norms_(module: TracedModule) -> None:
    """From now on they use and keep their running statistics in training too; scale and shift still learn."""
    nodes = [node for node in module.graph.nodes if node.target is BATCH_NORM]
    for node in nodes:
        source, weight, bias, mean, var, _, _, eps = node.args[:8]
        node.target, node.args = frozen_norm, (source, weight, bias, mean, var, eps)
    if nodes:
        module.recompile()


def frozen_norm(
    values: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """BatchNorm by its running statistics."""
    return functional.batch_norm(values, mean, var, weight, bias, training=False, eps=eps)
