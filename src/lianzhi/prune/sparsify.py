"""L1 on the BatchNorm scales: Network Slimming, 1708.06519.

loss = task loss + λ Σ|γ|; the gradient of the penalty is the paper's subgradient λ·sign(γ). The authors' code
adds that to the gradients by hand, before the optimizer's weight decay; as a term of the loss it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from lianzhi.errors import RecipeError
from lianzhi.graph import get_tensor


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
