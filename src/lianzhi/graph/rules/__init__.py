"""How labels flow through each ATen op: one table, filled by the files of this folder.

Ops that only move data are *executed on the label tensors*; element-wise ops tie the labels that meet;
weighted ops consume the labels of their input axis and give fresh ones to their output axis.
"""

from lianzhi.graph.rules import movement, pointwise, weighted
from lianzhi.graph.rules.flow import IN, NORM, OUT, RULES, VARIANCE, Flow, apply, argument, literal, rule

__all__ = [
    "IN",
    "NORM",
    "OUT",
    "RULES",
    "VARIANCE",
    "Flow",
    "apply",
    "argument",
    "literal",
    "movement",
    "pointwise",
    "rule",
    "weighted",
]
