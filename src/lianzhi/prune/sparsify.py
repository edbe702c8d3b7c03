"""L1 on the BatchNorm scales: Network Slimming, 1708.06519.

The penalty Σ|γ| is added to the loss; its gradient is the paper's subgradient sign(γ).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from lianzhi.graph import get_tensor
from lianzhi.graph.rules import aten


def bn_scales(model: nn.Module) -> list[nn.Parameter]:
    """The scales γ of all BatchNorm layers, of a module or of a captured graph.

    >>> [scale.shape for scale in bn_scales(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))]
    [torch.Size([4])]
    """
    found: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
            found[id(module.weight)] = module.weight
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is aten.batch_norm.default and isinstance(node.args[1], fx.Node):
                    scale = get_tensor(module, str(node.args[1].target))
                    if isinstance(scale, nn.Parameter):
                        found[id(scale)] = scale
    return list(found.values())


def bn_l1(scales: list[nn.Parameter]) -> Tensor:
    """Σ|γ| over all scales.

    >>> bn_l1([nn.Parameter(torch.tensor([1.0, -2.0]))]).item()
    3.0
    """
    return torch.cat([scale.reshape(-1) for scale in scales]).abs().sum()
