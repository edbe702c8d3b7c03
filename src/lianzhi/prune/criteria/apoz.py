"""Average percentage of zeros: Network Trimming, 1607.03250.

score(i) = 1 − (share of zeros of channel i after its activation function), over calibration samples and
positions. Useful after ReLU; an activation that is never exactly zero gives every channel 1.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import needs, registry
from lianzhi.prune.importance import GroupView


@registry.register("apoz", "1 − share of zeros after the activation", paper="1607.03250")
@needs("activations")
def apoz(view: GroupView) -> list[Tensor]:
    """One score a unit and activation.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> net[0].weight.data, net[0].bias.data = torch.ones(2, 1), torch.tensor([-3.0, 0.0])
    >>> batches = [torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0]])]     # zeros: 2 of 3, and none
    >>> plan(net, torch.zeros(1, 1), ratio=0.5, criterion="apoz", calibration=batches).keeps["0"]
    tensor([False,  True])
    """
    return [1 - activity.zeros for activity in view.activations]
