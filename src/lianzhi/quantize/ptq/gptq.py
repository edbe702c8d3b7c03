"""GPTQ (2210.17323): round one input column after another, and let the rest make up for the error.

With the Hessian ``H = X X^T`` of a layer's input and the upper Cholesky factor ``U`` of its inverse, column j is
rounded, and the columns after it take ``-(w_j - q_j) / U_jj * U_j,:``. Columns go by falling diagonal of ``H``
(`order`), which the authors added to their code later. Convolutions are products of patches, once a group.
A weight that is zero was pruned and stays zero: what it would take goes on to the columns after it (SparseGPT, 2301.00774).
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
from lianzhi.quantize.ptq.walk import layers, weight_of

BLOCK = 128


class Gptq(TechniqueConfig):
    """`damping`: share of the mean diagonal that is added to it; `order`: the weightiest columns first."""

    stage: ClassVar[int] = ROUND
    damping: float = Field(default=0.01, gt=0, le=1)
    order: bool = True


@registry.register(
    "gptq", "round column by column, the rest makes up for it", paper="2210.17323", config=Gptq
)
def apply(
    floating: TracedModule, quantized: TracedModule, batches: list[Any], names: list[str], options: Gptq
) -> Skipped:
    """Round the weights of these ops, in place, from the first to the last."""
    skipped = []
    for layer in layers(floating, quantized, batches, names):
        reason = obstacle(layer.node)
        if reason:
            skipped.append((layer_name(layer.node), reason))
            continue
        weight = weight_of(quantized, layer.node)
        values = get_tensor(quantized, weight.name)
        groups = groups_of(layer.node)
        hessian = torch.zeros(1)
        for batch in layer.inputs:
            seen = columns(layer.node, batch, values)
            hessian = hessian + second_moment(seen, seen)
        matrix = as_matrix(values.detach(), groups)
        scale = weight.scale_of(matrix)
        rounded = gptq(
            matrix, hessian, scale, weight.qmin, weight.qmax, damping=options.damping, order=options.order
        )
        with torch.no_grad():
            values.copy_(rounded.reshape(values.shape))
    return skipped


def gptq(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    qmin: int,
    qmax: int,
    *,
    damping: float = 0.01,
    order: bool = True,
) -> Tensor:
    """Weights on the grid ``scale * [qmin, qmax]`` whose product with the input is close to that of `weight`.

    >>> weight, scale = torch.tensor([[[0.4, 0.4]]]), torch.tensor([[1.0]])
    >>> gptq(weight, torch.ones(1, 2, 2), scale, -7, 7)  # equal inputs: 0.8 is nearer to 1 than to 0
    tensor([[[0., 1.]]])

    `weight` is ``(groups, out, features)``, `hessian` ``(groups, features, features)``, the sum of ``x x^T``,
    and `scale` ``(groups, out)``, or ``(groups, out, features)`` where the features have scales of their own.
    Zeros of `weight` stay zeros.
    """
    hessian = hessian.double().clone()
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    added = damping * diagonal.mean(1, keepdim=True)
    diagonal += torch.where(added > 0, added, torch.ones_like(added))
    features = weight.shape[2]
    ranks = torch.arange(features).expand(len(weight), features)
    if order:
        ranks = diagonal.argsort(dim=1, descending=True, stable=True)
    left = weight.double().gather(2, ranks[:, None].expand_as(weight)).clone()
    kept = left != 0
    hessian = hessian.gather(1, ranks[:, :, None].expand_as(hessian))
    hessian = hessian.gather(2, ranks[:, None, :].expand_as(hessian))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    step = scale.double()
    step = (
        step[:, :, None].expand_as(left)
        if step.dim() == 2
        else step.gather(2, ranks[:, None].expand_as(step))
    )
    done = torch.empty_like(left)
    for start in range(0, features, BLOCK):
        end = min(start + BLOCK, features)
        errors = torch.zeros(*left.shape[:2], end - start, dtype=torch.float64)
        for column in range(start, end):
            value = left[:, :, column]
            rounded = (value / step[:, :, column]).round().clamp(qmin, qmax) * step[:, :, column]
            done[:, :, column] = rounded * kept[:, :, column]
            error = (value - done[:, :, column]) / factor[:, column, column, None]
            left[:, :, column:end] -= error[:, :, None] * factor[:, None, column, column:end]
            errors[:, :, column - start] = error
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(done).scatter_(2, ranks[:, None].expand_as(done), done).to(weight.dtype)
