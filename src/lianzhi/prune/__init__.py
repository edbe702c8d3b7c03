"""Structured pruning: remove channels, exactly, from any module that exports."""

from lianzhi.prune import criteria
from lianzhi.prune._plan import plan
from lianzhi.prune.batch_norm import reestimate
from lianzhi.prune.criteria import registry
from lianzhi.prune.importance import GroupView
from lianzhi.prune.planned import Plan
from lianzhi.prune.sparsify import bn_l1, bn_scales

__all__ = ["GroupView", "Plan", "bn_l1", "bn_scales", "criteria", "plan", "reestimate", "registry"]
