"""Sums, means, extremes over dimensions."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.call import Call
from lianzhi.deploy.oneflow.code.table import add, writes

add(
    {
        "sum.default": "flow.sum({self})",
        "mean.default": "flow.mean({self})",
        "argmax.default": "flow.argmax({self}, dim={dim}, keepdim={keepdim})",
        "max.dim": "flow.max({self}, {dim}, {keepdim})",
        "min.dim": "flow.min({self}, {dim}, {keepdim})",
    }
)


@writes("sum.dim_IntList", "mean.dim", "amax.default", "amin.default")
def over_dims(call: Call) -> str:
    """One value of each run along some dimensions; of all where none are named."""
    name = call.node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    dims = call.value("dim") or list(range(len(call.shape("self"))))
    return f"flow.{name}({call['self']}, dim={dims!r}{call.unless('keepdim', False)})"


@writes("cumsum.default")
def cumsum(call: Call) -> str:
    """Sums so far."""
    return f"flow.cumsum({call['self']}, dim={call['dim']})"


@writes("var.correction", "std.correction", "var.dim", "std.dim")
def spread(call: Call) -> str:
    """Variance or deviation, by all values or by one less."""
    name = call.node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    correction = call.values["correction"] if "correction" in call.values else int(call.value("unbiased"))
    if correction not in (None, 0, 1):
        raise call.refuse(f"has the correction {correction}, and OneFlow 0 or 1")
    dims = call.value("dim") or list(range(len(call.shape("self"))))
    return f"flow.{name}({call['self']}, dim={dims!r}, unbiased={correction != 0}{call.unless('keepdim', False)})"
