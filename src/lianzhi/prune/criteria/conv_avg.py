"""Mean magnitude of a filter: one of the three magnitude operators of the OneFlow pruning platform.

score(i) = mean|W_i|. Convolutions only; a group that no convolution gives has no score and stays whole.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("conv_avg", "mean of |w| of a convolution's filter")
def conv_avg(view: GroupView) -> list[Tensor]:
    """One score a unit and producing convolution.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.Conv2d(4, 1, 1))
    >>> net[0].weight.data = torch.tensor([3.0, -1.0, 4.0, 2.0]).view(4, 1, 1, 1)
    >>> plan(net, torch.zeros(1, 1, 4, 4), ratio=0.5, criterion="conv_avg").keeps["0"]
    tensor([ True, False,  True, False])
    """
    return [view.rows(slot).abs().mean(1) for slot in view.convolutions()]
