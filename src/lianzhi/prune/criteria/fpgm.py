"""Filters near the geometric median go: FPGM, 1811.00250.

score(i) = Σ_j ‖W_i − W_j‖₂. The geometric median minimises the sum of distances over all points; as in the
paper it is sought among the filters themselves, and the filters with the smallest sum are the replaceable ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView, producer_scores


@registry.register("fpgm", "summed distance of a filter to all others", paper="1811.00250")
def fpgm(view: GroupView) -> list[Tensor]:
    """One score a unit and producing layer.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1, bias=False), torch.nn.Conv2d(3, 1, 1))
    >>> net[0].weight.data = torch.tensor([1.0, 5.0, 4.0]).view(3, 1, 1, 1)       # sums 7, 5, 4
    >>> plan(net, torch.zeros(1, 1, 4, 4), ratio=0.3, criterion="fpgm").keeps["0"]
    tensor([ True,  True, False])
    """
    return producer_scores(view, lambda rows: torch.cdist(rows, rows).sum(1))
