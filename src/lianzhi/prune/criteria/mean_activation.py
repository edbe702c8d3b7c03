"""Mean magnitude of a channel's activation over calibration data.

score(i) = mean|a_i| over samples and positions, a_i being channel i after its activation function.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import needs, registry
from lianzhi.prune.importance import GroupView


@registry.register("mean_activation", "mean |activation| over calibration data")
@needs("activations")
def mean_activation(view: GroupView) -> list[Tensor]:
    """One score a unit and activation.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> net[0].weight.data, net[0].bias.data = torch.tensor([[1.0], [2.0]]), torch.zeros(2)
    >>> plan(net, torch.zeros(1, 1), ratio=0.5, criterion="mean_activation", calibration=[torch.ones(2, 1)]).keeps["0"]
    tensor([False,  True])
    """
    return [activity.magnitude for activity in view.activations]
