"""The scale γ of the BatchNorm that follows: Network Slimming, 1708.06519.

score(i) = |γ_i|. Meant for models trained with `Sparsify`. A group without a normalisation layer has no
γ; it gets no score, stays whole, and the plan says so.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("bn_scale", "|γ| of the BatchNorm that follows", paper="1708.06519")
def bn_scale(view: GroupView) -> list[Tensor]:
    """One score a unit and BatchNorm; none where no BatchNorm follows."""
    return [view.rows(slot).abs().mean(1) for slot in view.scales()]
