"""First-order Taylor expansion of the loss: Importance Estimation for Neural Network Pruning, 1906.10771.

score(i) = mean over batches of |Σ w·∂L/∂w|, the sum running over the unit's slices. The absolute value is taken a
batch: at a minimum the gradient over the whole set vanishes, and with it every score. The paper squares instead,
and takes the weights of one layer or a gate after it. Here `over` is ``group`` (every tensor that loses the unit,
the default), ``producers`` (with their biases and norms) or ``consumers``; consumers alone are the exact first
derivative of the loss by a gate on the channel. The model runs in eval mode.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lianzhi.config import Config
from lianzhi.prune.criteria.registry import needs, registry
from lianzhi.prune.importance import GroupView


class TaylorOptions(Config):
    """Options of `taylor`."""

    over: Literal["group", "producers", "consumers"] = "group"


@registry.register(
    "taylor", "mean over batches of |Σ w·gradient| over the group", paper="1906.10771", config=TaylorOptions
)
@needs("gradients")
def taylor(view: GroupView, *, over: str = "group") -> list[Tensor]:
    """One score a unit.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[1].weight.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 1.0]])
    >>> batches = [(torch.ones(4, 1), torch.zeros(4, 1))]
    >>> loss = lambda outputs, labels: (outputs - labels).mean()
    >>> plan(net, torch.zeros(1, 1), ratio=0.5, criterion="taylor", calibration=batches, loss=loss).keeps["0"]
    tensor([False,  True])
    """
    found = view.gradients(over)
    return [torch.stack(found).sum(0).abs().mean(0)] if found else []
