"""Arithmetic, value by value, and products of matrices."""

from __future__ import annotations

import torch
from torch import fx

from lianzhi.deploy.oneflow.code.call import DTYPES, Call
from lianzhi.deploy.oneflow.code.table import add, writes

add(
    {
        "mul.Tensor": "{self} * {other}",
        "mul.Scalar": "{self} * {other}",
        "neg.default": "-{self}",
        "abs.default": "flow.abs({self})",
        "pow.Tensor_Scalar": "{self} ** {exponent}",
        "square.default": "flow.square({self})",
        "sqrt.default": "flow.sqrt({self})",
        "rsqrt.default": "flow.rsqrt({self})",
        "reciprocal.default": "1.0 / {self}",
        "exp.default": "flow.exp({self})",
        "log.default": "flow.log({self})",
        "erf.default": "flow.erf({self})",
        "sin.default": "flow.sin({self})",
        "cos.default": "flow.cos({self})",
        "floor.default": "flow.floor({self})",
        "maximum.default": "flow.maximum({self}, {other})",
        "minimum.default": "flow.minimum({self}, {other})",
        "clamp_min.default": "flow.clamp({self}, min={min})",
        "clamp_max.default": "flow.clamp({self}, max={max})",
        "bmm.default": "flow.bmm({self}, {mat2})",
        "mm.default": "flow.matmul({self}, {mat2})",
        "addmm.default": "{self} * {beta} + flow.matmul({mat1}, {mat2}) * {alpha}",
        "baddbmm.default": "{self} * {beta} + flow.bmm({batch1}, {batch2}) * {alpha}",
    }
)


@writes("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar")
def sum_of_two(call: Call) -> str:
    """A sum or a difference; the second may have a factor."""
    sign = "+" if "add" in str(call.node.target) else "-"
    factor = "" if call.value("alpha") == 1 else f"{call['alpha']} * "
    return f"{call['self']} {sign} {factor}{call['other']}"


@writes("rsub.Scalar", "rsub.Tensor")
def difference_from(call: Call) -> str:
    """The second less the first."""
    factor = "" if call.value("alpha") == 1 else f"{call['alpha']} * "
    return f"{call['other']} - {factor}{call['self']}"


@writes("div.Tensor", "div.Scalar")
def quotient(call: Call) -> str:
    """A quotient; OneFlow's of two whole numbers would be a whole one."""
    top = call["self"]
    if not call.dtype("self").is_floating_point:
        top = f"{top}.to({DTYPES[call.dtype()]})"
    return f"{top} / {call['other']}"


@writes("clamp.default")
def clamp(call: Call) -> str:
    """Values held between two numbers, of which one may be missing."""
    given = [f"{name}={call[name]}" for name in ("min", "max") if call.value(name) is not None]
    return f"flow.clamp({call['self']}, {', '.join(given)})"


@writes("matmul.default")
def matmul(call: Call) -> str:
    """A product of matrices; OneFlow ends the process on some of vectors, which are made matrices."""
    left, right = call["self"], call["other"]
    if len(call.shape("other")) > 1 and len(call.shape("self")) > 1:
        return f"flow.matmul({left}, {right})"
    if len(call.shape("self")) == 1:
        raise call.refuse(
            "multiplies a vector by what stands right of it; give it a first dimension (unsqueeze)"
        )
    return f"flow.matmul({left}, {right}.unsqueeze(-1)).squeeze(-1)"


@writes("type_as.default", "to.dtype", "to.device", "to.dtype_layout", "to.other")
def cast(call: Call) -> str:
    """Another type; where the model computes is of no account."""
    return f"{call['self']}.to({call.source(call.dtype())})"


@writes("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(call: Call) -> str:
    """One or the other by a condition. Numbers become tensors, since OneFlow makes float64 of them."""
    made = [_operand(call, name) for name in ("self", "other")]
    return f"flow.where({call['condition']}, {made[0]}, {made[1]})"


def _operand(call: Call, name: str) -> str:
    value, wanted = call.value(name), call.dtype()
    if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor):
        return call[name] if call.dtype(name) == wanted else f"{call[name]}.to({call.source(wanted)})"
    return f"flow.tensor({call[name]}, dtype={call.source(wanted)}, device={call.device})"
