"""The part of a value's range that its readers tell apart: what an activation cuts off needs no integers.

``HardSwish(x)`` is 0 for every x below -3, so that a convolution before it that reaches down to -20 would spend most of
its 255 steps on values that all become 0. Observed values are clamped to that part; what the file computes without
rounding is the same.
"""

from __future__ import annotations

from typing import Any

from lianzhi.quantize.onnx_files.net import Net, attribute

WHOLE = (-float("inf"), float("inf"))


def told_apart(net: Net, name: str) -> tuple[float, float]:
    """Between which numbers the readers of a value give different results.

    >>> from onnx import helper
    >>> described = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    >>> node = helper.make_node("HardSwish", ["x"], ["y"])
    >>> told_apart(Net(helper.make_model(helper.make_graph([node], "g", described[:1], described[1:]))), "x")
    (-3.0, inf)
    """
    readers = net.readers.get(name, [])
    if not readers or name in net.outputs | net.nested:
        return WHOLE
    parts = [_part(net, node) for node in readers]
    return min(low for low, _ in parts), max(high for _, high in parts)


def _part(net: Net, node: Any) -> tuple[float, float]:
    """What one reader tells apart. The gate of ``x * HardSigmoid(x)`` is told apart above too, by the product."""
    if node.op_type == "HardSwish":
        return -3.0, float("inf")
    if node.op_type == "HardSigmoid":
        return _sigmoid(node)
    gate = _gate(net, node) if node.op_type == "Mul" else None
    return WHOLE if gate is None else (gate[0], float("inf"))


def _sigmoid(node: Any) -> tuple[float, float]:
    """Where ``clip(alpha x + beta, 0, 1)`` is neither 0 nor 1."""
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else WHOLE


def _gate(net: Net, node: Any) -> tuple[float, float] | None:
    """The part of a HardSigmoid that multiplies its own input, the node's other operand."""
    names = list(node.input)
    for gate, value in (names, names[::-1]):
        maker = net.makers.get(gate)
        if maker is not None and maker.op_type == "HardSigmoid" and maker.input[0] == value:
            return _sigmoid(maker)
    return None
