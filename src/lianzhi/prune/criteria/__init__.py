"""Criteria: one a file, each a plain function from a group to one score a channel (low goes first)."""

from lianzhi.prune.criteria import bn_scale, l1, l2, random
from lianzhi.prune.criteria.registry import registry

__all__ = ["bn_scale", "l1", "l2", "random", "registry"]
