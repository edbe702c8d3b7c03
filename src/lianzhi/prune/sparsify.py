"""Penalties that drive whole channels to zero while the model trains.

`bn_l1`: L1 on the BatchNorm scales, Network Slimming, 1708.06519.

loss = task loss + λ Σ|γ|; the gradient of the penalty is the paper's subgradient λ·sign(γ). The authors' code
adds that to the gradients by hand, before the optimizer's weight decay; as a term of the loss it is the same.

`group_lasso`: λ Σ_groups Σ_units ‖w_unit‖₂ over every slice that goes with a unit, its producers' rows, its norms
and biases, and its consumers' columns (the group sparsity of DepGraph, 2301.12900, whose authors weight units by
their rank; here all weigh the same). Unlike L1 on γ it needs no BatchNorm, and a unit that is zero is zero in
all that is removed with it. Its subgradient is w/‖w_unit‖, and 0 where the unit is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.errors import RecipeError
from lianzhi.graph import capture, channel_groups, get_tensor

Slices = list[tuple[Tensor, int, Tensor]]  # parameter, axis, (units, k) indices on it


def bn_scales(model: nn.Module) -> list[nn.Parameter]:
    """The scales γ of all BatchNorm layers, of a module or of a captured graph; each once.

    >>> [scale.shape for scale in bn_scales(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))]
    [torch.Size([4])]
    """
    found: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
            found[id(module.weight)] = module.weight
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.aten.batch_norm.default and isinstance(node.args[1], fx.Node):
                    scale = get_tensor(module, str(node.args[1].target))
                    if isinstance(scale, nn.Parameter):
                        found[id(scale)] = scale
    return list(found.values())


def bn_l1(scales: nn.Module | Sequence[Tensor], coefficient: float = 1.0) -> Tensor:
    """λ Σ|γ| over all scales of a model, or over a list that `bn_scales` gave (quicker in a loop).

    >>> bn_l1([nn.Parameter(torch.tensor([1.0, -2.0]))], 0.5).item()
    1.5

    Raises `RecipeError` for a model without BatchNorm scales.
    """
    found: Sequence[Tensor] = bn_scales(scales) if isinstance(scales, nn.Module) else scales
    if not found:
        raise RecipeError(
            "bn_l1: the model has no BatchNorm with scales; prune by a criterion on weights (l1)"
        )
    return coefficient * torch.cat([scale.reshape(-1) for scale in found]).abs().sum()


def channel_slices(model: nn.Module, example_inputs: Any) -> list[Slices]:
    """The parameters of each channel group: which indices of which axis go with each unit. For `group_lasso`.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [[(tuple(tensor.shape), axis) for tensor, axis, _ in slices] for slices in channel_slices(net, torch.ones(1, 4))]
    [[((3, 4), 0), ((3,), 0), ((2, 3), 1)]]
    """
    graph = capture(model, example_inputs)
    parameters = {id(parameter): parameter for parameter in model.parameters()}
    found = []
    for group in channel_groups(graph).groups:
        slices: Slices = []
        for slot, members in group.members.items():
            parameter = parameters.get(id(get_tensor(graph.module, slot.tensor)))
            if parameter is not None and parameter.is_floating_point():
                slices.append((parameter, slot.axis, members))
        if slices:
            found.append(slices)
    return found


def group_lasso(slices: Sequence[Slices], coefficient: float = 1.0) -> Tensor:
    """λ Σ‖w_unit‖₂ over all units of all groups that `channel_slices` gave.

    >>> weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> penalty = group_lasso([[(weight, 0, torch.tensor([[0], [1]]))]], 0.5)
    >>> penalty.backward(); penalty.item(), weight.grad.tolist()
    (2.5, [[0.30000001192092896, 0.4000000059604645], [0.0, 0.0]])

    Raises `RecipeError` for a model without channel groups.
    """
    if not slices:
        raise RecipeError("group_lasso: the model has no channel groups; lz.prune.plan says why")
    norms = []
    for group in slices:
        parts = []
        for tensor, axis, members in group:
            others = [dim for dim in range(tensor.dim()) if dim != axis]
            lengths = torch.linalg.vector_norm(tensor, dim=others) if others else tensor.abs()
            parts.append(lengths[members.to(tensor.device)])
        norms.append(torch.linalg.vector_norm(torch.cat(parts, 1), dim=1).sum())
    return coefficient * torch.stack(norms).sum()
