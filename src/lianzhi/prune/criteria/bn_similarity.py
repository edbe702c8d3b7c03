"""Scales that resemble another one go: an operator of the OneFlow pruning platform, done right.

score(i) = |γ_i − γ_j| to the nearest other scale j of the layer, re-evaluated after each removal on the original
indices (see `similarity`). A group without BatchNorm has no score and stays whole.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.criteria.similarity import nearest_neighbour_scores
from lianzhi.prune.importance import GroupView


@registry.register("bn_similarity", "distance of a BatchNorm scale to the nearest one that is left")
def bn_similarity(view: GroupView) -> list[Tensor]:
    """One score a unit and BatchNorm.

    >>> import torch
    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 1, 1))
    >>> net[1].weight.data = torch.tensor([0.1, 2.0, 1.9])
    >>> plan(net, torch.zeros(1, 1, 4, 4), ratio=0.3, criterion="bn_similarity").keeps["0"]
    tensor([ True,  True, False])
    """
    return [nearest_neighbour_scores(view.rows(slot)) for slot in view.scales()]
