"""Structured pruning: remove channels, exactly, from any module that exports."""

from lianzhi.prune import criteria
from lianzhi.prune._plan import plan
from lianzhi.prune.activations import Activity
from lianzhi.prune.allocation import knapsack
from lianzhi.prune.batch_norm import reestimate
from lianzhi.prune.criteria import needs, registry
from lianzhi.prune.depth import DepthPlan, plan_layers
from lianzhi.prune.importance import GroupView
from lianzhi.prune.latency import latency_share
from lianzhi.prune.planned import Plan
from lianzhi.prune.rounds import SCHEDULES, round_budget, shares
from lianzhi.prune.sensitivity import Sensitivity, sensitivity
from lianzhi.prune.sparsify import bn_l1, bn_scales, channel_slices, group_lasso
from lianzhi.prune.vocabulary import keep_tokens, token_tables

__all__ = [
    "SCHEDULES",
    "Activity",
    "DepthPlan",
    "GroupView",
    "Plan",
    "Sensitivity",
    "bn_l1",
    "bn_scales",
    "channel_slices",
    "criteria",
    "group_lasso",
    "keep_tokens",
    "knapsack",
    "latency_share",
    "needs",
    "plan",
    "plan_layers",
    "reestimate",
    "registry",
    "round_budget",
    "sensitivity",
    "shares",
    "token_tables",
]
