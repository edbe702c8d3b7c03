"""L2 norm of a channel's weights: 1608.08710 names it beside L1.

score(i) = ‖W_i‖₂, or with `per_weight` the root mean square.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.config import Config
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView, producer_scores


class L2Options(Config):
    """Options of `l2`."""

    per_weight: bool = False


@registry.register("l2", "Euclidean norm of a channel's weights", paper="1608.08710", config=L2Options)
def l2(view: GroupView, *, per_weight: bool = False) -> list[Tensor]:
    """One score a unit and producing layer."""
    return producer_scores(
        view, lambda rows: rows.square().mean(1).sqrt() if per_weight else rows.norm(dim=1)
    )
