"""Strength of the paths through a channel: the squared path norm of Path-SGD, 1506.02617, of one unit.

score(i) = s_i · Σ ‖consumer weights of i‖², where s_i is γ_i² of the BatchNorm that follows (summed over several), or
‖W_i‖² of the producing layers where none does. Scaling a channel up and what reads it down changes neither the
network (with ReLU) nor the score. With a BatchNorm the filter's own size means nothing, and is not looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.graph.labels import Slot
from lianzhi.graph.rules import IN
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("path_norm", "strength into a channel times strength out of it", paper="1506.02617")
def path_norm(view: GroupView) -> list[Tensor]:
    """One score a unit.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> net[0].weight.data, net[2].weight.data = torch.tensor([[1.0], [4.0]]), torch.tensor([[5.0, 1.0]])
    >>> plan(net, torch.zeros(1, 1), ratio=0.5, criterion="path_norm").keeps["0"]
    tensor([ True, False])
    """
    into = _squares(view, view.scales() or view.producers())
    out_of = _squares(view, view.group.slots(IN))
    return [into * out_of]


def _squares(view: GroupView, slots: list[Slot]) -> Tensor:
    """The sum of squares of each unit's slices of some tensors; 1 where there are none."""
    found = [view.rows(slot).square().sum(1) for slot in slots]
    return torch.stack(found).sum(0) if found else torch.ones(len(view), dtype=torch.float64)
