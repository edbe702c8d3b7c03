"""Criteria: one a file, each a plain function from a group to scores, one a channel (low goes first)."""

from lianzhi.prune.criteria.bn_scale import bn_scale
from lianzhi.prune.criteria.l1 import l1
from lianzhi.prune.criteria.l2 import l2
from lianzhi.prune.criteria.random import random
from lianzhi.prune.criteria.registry import registry

__all__ = ["bn_scale", "l1", "l2", "random", "registry"]
