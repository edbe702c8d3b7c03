"""Mean magnitude of a neuron's weights: the dense-layer operator of the OneFlow pruning platform.

score(i) = mean|W_i|, W_i being the weights into output neuron i. Dense layers only; a group that no dense layer
gives has no score and stays whole.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("neuron", "mean of |w| into a dense layer's neuron")
def neuron(view: GroupView) -> list[Tensor]:
    """One score a unit and producing dense layer.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [3.0, 0.0]])
    >>> plan(net, torch.zeros(1, 2), ratio=0.5, criterion="neuron").keeps["0"]
    tensor([False,  True])
    """
    return [view.rows(slot).abs().mean(1) for slot in view.dense()]
