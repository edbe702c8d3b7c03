"""Layer-adaptive magnitude: LAMP, 2010.07611, for channels.

score(i) = s_i / Σ_{j: s_j ≥ s_i} s_j, s_i being the squared norm of unit i over the group's producing layers. The
paper's w² of a single weight becomes the squared norm of a channel. The best unit of every group has 1, so that
one global ranking never empties a layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView, producer_scores


@registry.register("lamp", "squared norm over that of all that are not smaller", paper="2010.07611")
def lamp(view: GroupView) -> list[Tensor]:
    """One score a unit.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1, bias=False), torch.nn.Conv2d(3, 1, 1))
    >>> net[0].weight.data = torch.tensor([1.0, 3.0, 2.0]).view(3, 1, 1, 1)       # 1/14, 9/9, 4/13
    >>> plan(net, torch.zeros(1, 1, 4, 4), ratio=0.3, criterion="lamp").keeps["0"]
    tensor([False,  True,  True])
    """
    return [lamp_scores(torch.stack(producer_scores(view, lambda rows: rows.square().sum(1))).sum(0))]


def lamp_scores(squares: Tensor) -> Tensor:
    """s over the sum of all s that are not smaller; equal ones count in full.

    >>> lamp_scores(torch.tensor([1.0, 1.0, 2.0]))
    tensor([0.2500, 0.2500, 1.0000])
    """
    ordered, order = squares.sort()
    rest = ordered.flip(0).cumsum(0).flip(0)
    first = torch.searchsorted(ordered, ordered)  # the first of those that are equal
    scores = torch.zeros_like(squares)
    tiny = torch.finfo(squares.dtype).tiny
    scores[order] = ordered / rest[first].clamp_min(tiny)
    return scores
