"""Comparisons, and what is done with their results."""

from __future__ import annotations

import torch

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import add, writes

_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

add(
    {
        f"{name}.{kind}": f"{{self}} {sign} {{other}}"
        for name, sign in _SIGNS.items()
        for kind in ("Scalar", "Tensor")
    }
)
add(
    {
        "masked_fill.Scalar": "{self}.masked_fill({mask}, {value})",
        "logical_not.default": "flow.logical_not({self})",
        "logical_and.default": "flow.logical_and({self}, {other})",
        "logical_or.default": "flow.logical_or({self}, {other})",
    }
)


@writes("__and__.Tensor", "bitwise_and.Tensor", "__or__.Tensor", "bitwise_or.Tensor")
def both(call: Call) -> str:
    """And, or of booleans."""
    _require_bool(call)
    joins = "and" if "and" in str(call.node.target) else "or"
    return f"flow.logical_{joins}({call['self']}, {call['other']})"


@writes("bitwise_not.default")
def negation(call: Call) -> str:
    """Not of booleans."""
    _require_bool(call)
    return f"flow.logical_not({call['self']})"


def _require_bool(call: Call) -> None:
    if call.dtype() != torch.bool:
        raise call.refuse("works on the bits of whole numbers, which OneFlow does not")
