"""The scale γ of the BatchNorm that follows: Network Slimming, 1708.06519.

score(i) = |γ_i|. Meant for models trained with `Sparsify`. A group without a normalisation layer has no
γ and is an error: rank by a criterion on weights instead, or leave the group out with `ignore`.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.errors import GraphError
from lianzhi.prune.criteria.registry import registry
from lianzhi.prune.importance import GroupView


@registry.register("bn_scale", "|γ| of the BatchNorm that follows", paper="1708.06519")
def bn_scale(view: GroupView) -> list[Tensor]:
    """One score a unit and BatchNorm."""
    scales = view.scales()
    if not scales:
        raise GraphError(
            f"criterion 'bn_scale': group '{view.group.name}' passes no BatchNorm; "
            f"use criterion 'l1', or add '{view.group.name}' to ignore"
        )
    return [view.rows(slot).abs().mean(1) for slot in scales]
