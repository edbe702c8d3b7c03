"""Integer weights as a matrix product reads them: ``(in, out)``, and no Transpose between.

ONNX Runtime takes ``DequantizeLinear → MatMul`` into a kernel that reads the integers. With a Transpose between it makes floats
of 4-bit and grouped weights when the file is loaded: they take the memory of floats, and are no faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def orient_weights(proto: Any) -> None:
    """Store what only matrix products read transposed, in place, in a file of weights alone; integers of 4 bits not packed yet."""
    from onnx import helper

    if any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        return
    stored = {item.name: item for item in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {item.name: [item] for item in proto.graph.output}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for turn in [node for node in proto.graph.node if node.op_type == "Transpose"]:
        dequantize, products = makers.get(turn.input[0]), readers.get(turn.output[0], [])
        if (
            dequantize is None
            or dequantize.op_type != "DequantizeLinear"
            or dequantize.input[0] not in stored
        ):
            continue
        alone = all(
            len(readers[name]) == 1 for name in (turn.input[0], dequantize.input[0], dequantize.input[1])
        )
        if (
            not alone
            or len(stored[dequantize.input[0]].dims) != 2
            or not all(map(_multiplies(turn), products))
        ):
            continue
        given = {item.name: item for item in dequantize.attribute}
        axis = given["axis"].i if "axis" in given else 1
        for name in dequantize.input[:2]:
            _transpose(stored[name])
        if "axis" in given:
            dequantize.attribute.remove(given["axis"])
        dequantize.attribute.append(helper.make_attribute("axis", 1 - axis))
        for node in products:
            node.input[1] = dequantize.output[0]
        proto.graph.node.remove(turn)
        for info in [
            item for item in proto.graph.value_info if item.name in (turn.output[0], dequantize.output[0])
        ]:
            proto.graph.value_info.remove(info)


def _multiplies(turn: Any) -> Any:
    """Whether a node is a matrix product whose second operand is this Transpose's result, and only that."""

    def multiplies(node: Any) -> bool:
        return getattr(node, "op_type", "") == "MatMul" and list(node.input).index(turn.output[0]) == 1

    return multiplies


def _transpose(tensor: Any) -> None:
    """Transpose a stored matrix, in place; a vector is what it was."""
    from onnx import numpy_helper

    if len(tensor.dims) == 2:
        turned = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
