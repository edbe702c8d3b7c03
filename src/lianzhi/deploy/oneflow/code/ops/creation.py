"""Tensors that are made: of one value, or of numbers in a row; where the model's inputs are."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import writes


@writes("arange.default", "arange.start", "arange.start_step")
def arange(call: Call) -> str:
    """Numbers in a row."""
    start, step = call.values.get("start", 0), call.values.get("step", 1)
    given = [call.source(start), call["end"], *([] if step == 1 else [call.source(step)])]
    return f"flow.arange({', '.join(given)}, dtype={call.source(call.dtype())}, device={call.device})"


@writes(
    "zeros.default",
    "ones.default",
    "full.default",
    "new_zeros.default",
    "new_ones.default",
    "new_full.default",
)
def full(call: Call) -> str:
    """One value in a shape."""
    return _filled(call, call["size"], shape_known=call.value("size") == [])


@writes("zeros_like.default", "ones_like.default", "full_like.default")
def full_like(call: Call) -> str:
    """One value in the shape of another tensor."""
    return _filled(call, f"{call['self']}.shape", shape_known=False)


def _filled(call: Call, size: str, *, shape_known: bool) -> str:
    """A shape of no dimensions is a tensor of a number: OneFlow fills no other."""
    name = str(call.node.target)
    value = "0" if "zeros" in name else "1" if "ones" in name else call["fill_value"]
    kind = f"dtype={call.source(call.dtype())}, device={call.device}"
    return f"flow.tensor({value}, {kind})" if shape_known else f"flow.full({size}, {value}, {kind})"
