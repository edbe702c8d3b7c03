"""The table's entries, a family of operations a file."""

from lianzhi.deploy.oneflow.code.ops import (
    activations,
    arithmetic,
    attention,
    creation,
    layers,
    logic,
    movement,
    pools,
    recurrent,
    reductions,
    sizes,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "creation",
    "layers",
    "logic",
    "movement",
    "pools",
    "recurrent",
    "reductions",
    "sizes",
]
