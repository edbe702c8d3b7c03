"""Filters that resemble another one go: an operator of the OneFlow pruning platform, done right.

score(i) = ‖W_i − W_j‖₂ to the nearest other filter j, re-evaluated after each removal on the original indices
(see `similarity`). The platform's own code is cubic in the filters, and after the first removal it mixes up the
indices of those that are left. Convolutions only.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.criteria.similarity import nearest_neighbour_scores
from lianzhi.prune.importance import GroupView


@registry.register("conv_similarity", "distance of a filter to the nearest one that is left")
def conv_similarity(view: GroupView) -> list[Tensor]:
    """One score a unit and producing convolution.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.Conv2d(4, 1, 1))
    >>> net[0].weight.data = torch.tensor([1.0, 9.0, 5.0, 8.5]).view(4, 1, 1, 1)
    >>> plan(net, torch.zeros(1, 1, 4, 4), ratio=0.25, criterion="conv_similarity").keeps["0"]
    tensor([ True,  True,  True, False])
    """
    return [nearest_neighbour_scores(view.rows(slot)) for slot in view.convolutions()]
