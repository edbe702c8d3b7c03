"""Summed magnitude of a filter: one of the three magnitude operators of the OneFlow pruning platform.

score(i) = Σ|W_i|: `l1` for convolutions only. A group that no convolution gives has no score and stays whole.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("conv_all", "sum of |w| of a convolution's filter")
def conv_all(view: GroupView) -> list[Tensor]:
    """One score a unit and producing convolution.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1, bias=False), torch.nn.Conv2d(2, 1, 1))
    >>> net[0].weight.data = torch.tensor([[5.0, 0.0], [4.0, 4.0]]).view(2, 2, 1, 1)
    >>> plan(net, torch.zeros(1, 2, 4, 4), ratio=0.5, criterion="conv_all").keeps["0"]
    tensor([False,  True])
    """
    return [view.rows(slot).abs().sum(1) for slot in view.convolutions()]
