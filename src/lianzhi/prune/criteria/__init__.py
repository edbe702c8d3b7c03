"""Criteria: one a file, each a plain function from a group to scores, one a channel (low goes first)."""

from lianzhi.prune.criteria.apoz import apoz
from lianzhi.prune.criteria.bn_scale import bn_scale
from lianzhi.prune.criteria.bn_similarity import bn_similarity
from lianzhi.prune.criteria.conv_all import conv_all
from lianzhi.prune.criteria.conv_avg import conv_avg
from lianzhi.prune.criteria.conv_max import conv_max
from lianzhi.prune.criteria.conv_similarity import conv_similarity
from lianzhi.prune.criteria.conv_threshold import conv_threshold
from lianzhi.prune.criteria.fpgm import fpgm
from lianzhi.prune.criteria.hessian import hessian
from lianzhi.prune.criteria.l1 import l1
from lianzhi.prune.criteria.l2 import l2
from lianzhi.prune.criteria.lamp import lamp
from lianzhi.prune.criteria.mean_activation import mean_activation
from lianzhi.prune.criteria.neuron import neuron
from lianzhi.prune.criteria.path_norm import path_norm
from lianzhi.prune.criteria.random import random
from lianzhi.prune.criteria.registry import needed_by, needs, registry
from lianzhi.prune.criteria.taylor import taylor

__all__ = [
    "apoz",
    "bn_scale",
    "bn_similarity",
    "conv_all",
    "conv_avg",
    "conv_max",
    "conv_similarity",
    "conv_threshold",
    "fpgm",
    "hessian",
    "l1",
    "l2",
    "lamp",
    "mean_activation",
    "needed_by",
    "needs",
    "neuron",
    "path_norm",
    "random",
    "registry",
    "taylor",
]
