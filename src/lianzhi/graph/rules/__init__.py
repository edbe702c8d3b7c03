"""How labels flow through each ATen op: one table, filled by the files of this folder.

Ops that only move data are *executed on the label tensors*; element-wise ops tie the labels that meet;
weighted ops consume the labels of their input axis and give fresh ones to their output axis.
"""

from lianzhi.graph.rules import indexing, movement, norms, pointwise, products, recurrent, weighted
from lianzhi.graph.rules.flow import (
    HEADS,
    IN,
    INSIDE,
    NORM,
    OUT,
    RULES,
    SCALE,
    VARIANCE,
    Flow,
    apply,
    argument,
    literal,
    rule,
)

__all__ = [
    "HEADS",
    "IN",
    "INSIDE",
    "NORM",
    "OUT",
    "RULES",
    "SCALE",
    "VARIANCE",
    "Flow",
    "apply",
    "argument",
    "indexing",
    "literal",
    "movement",
    "norms",
    "pointwise",
    "products",
    "recurrent",
    "rule",
    "weighted",
]
