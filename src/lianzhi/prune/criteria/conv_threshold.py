"""How many weights of a filter are large: an operator of the OneFlow pruning platform, the right way round.

score(i) = #{w in W_i: |w| ≥ t}, t = 0.06, or with `quantile` that quantile of |w| over the layer. The platform's
own code counts the weights *below* the threshold and removes the filters with the fewest of them, which are the
best ones.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from lianzhi.config import Config
from lianzhi.graph import get_tensor
from lianzhi.graph.labels import Slot
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


class ConvThresholdOptions(Config):
    """Options of `conv_threshold`."""

    threshold: float = Field(default=0.06, ge=0)
    quantile: float | None = Field(default=None, gt=0, lt=1)


@registry.register(
    "conv_threshold",
    "number of a filter's weights with |w| at a threshold or above",
    config=ConvThresholdOptions,
)
def conv_threshold(
    view: GroupView, *, threshold: float = 0.06, quantile: float | None = None
) -> list[Tensor]:
    """One score a unit and producing convolution.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.Conv2d(2, 1, 1))
    >>> net[0].weight.data = torch.tensor([[0.9, 0.01, 0.0], [0.07, 0.07, 0.0]]).view(2, 3, 1, 1)
    >>> plan(net, torch.zeros(1, 3, 4, 4), ratio=0.5, criterion="conv_threshold").keeps["0"]
    tensor([False,  True])
    """
    scores = []
    for slot in view.convolutions():
        rows = view.rows(slot).abs()
        limit = _as(view.model, slot, threshold) if quantile is None else _quantile(rows, quantile)
        scores.append((rows >= limit).sum(1).double())
    return scores


def _as(model: nn.Module, slot: Slot, threshold: float) -> float:
    """The threshold in the weights' own precision, so that a weight that equals it counts."""
    return float(torch.tensor(threshold, dtype=get_tensor(model, slot.tensor).dtype))


def _quantile(values: Tensor, share: float) -> float:
    """`torch.quantile` stops at 16 million values; this does not."""
    flat = values.reshape(-1)
    return float(flat.kthvalue(max(1, min(len(flat), round(share * len(flat))))).values)
