"""Structured pruning: remove channels, exactly, from any module that exports."""

from lianzhi.prune import criteria
from lianzhi.prune._plan import plan
from lianzhi.prune.activations import Activity
from lianzhi.prune.batch_norm import reestimate
from lianzhi.prune.criteria import registry
from lianzhi.prune.importance import GroupView
from lianzhi.prune.planned import Plan
from lianzhi.prune.rounds import SCHEDULES, shares
from lianzhi.prune.sensitivity import Sensitivity, sensitivity
from lianzhi.prune.sparsify import bn_l1, bn_scales, channel_slices, group_lasso

__all__ = [
    "SCHEDULES",
    "Activity",
    "GroupView",
    "Plan",
    "Sensitivity",
    "bn_l1",
    "bn_scales",
    "channel_slices",
    "criteria",
    "group_lasso",
    "plan",
    "reestimate",
    "registry",
    "sensitivity",
    "shares",
]
