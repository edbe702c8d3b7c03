"""L1 norm of a channel's weights: Pruning Filters for Efficient ConvNets, 1608.08710.

score(i) = Σ|W_i|, or with `per_weight` the mean |W_i| (fan-in taken out).
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.config import Config
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView, producer_scores


class L1Options(Config):
    """Options of `l1`."""

    per_weight: bool = False


@registry.register("l1", "sum of |w| of a channel's weights", paper="1608.08710", config=L1Options)
def l1(view: GroupView, *, per_weight: bool = False) -> list[Tensor]:
    """One score a unit and producing layer."""
    return producer_scores(view, lambda rows: rows.abs().mean(1) if per_weight else rows.abs().sum(1))
