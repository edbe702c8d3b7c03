"""Which precision an ONNX file holds, by what it stores."""

from __future__ import annotations

import os
from typing import Any

from lianzhi.deploy.inspection import is_quantized, read_onnx

_UINT8, _INT8, _FLOAT16, _BFLOAT16, _UINT4, _INT4 = 2, 3, 10, 16, 21, 22  # ONNX's numbers of these types
_INTEGERS = {_UINT8: "int8", _INT8: "int8", _UINT4: "int4", _INT4: "int4"}


def held_precision(path: str | os.PathLike[str]) -> str:
    """The precision of a file by what it stores: "f32" where nothing is smaller than float32."""
    graph = read_onnx(path, weights=False).graph
    stored = {tensor.name: tensor for tensor in (*graph.initializer, *_constants(graph))}
    read = [stored.get(node.input[0]) for node in graph.node if node.op_type == "DequantizeLinear"]
    integers = {
        _INTEGERS[item.data_type] for item in read if item is not None and item.data_type in _INTEGERS
    }
    if is_quantized(path):
        return "mixed" if len(integers) > 1 else next(iter(integers), "int8")
    if integers:
        return "mixed-weights" if len(integers) > 1 else f"{integers.pop()}-weights"
    floats = {tensor.data_type for tensor in stored.values() if len(tensor.dims) > 1}
    if _FLOAT16 in floats:
        return "f16-weights"
    return "bf16-weights" if _BFLOAT16 in floats else "f32"


def _constants(graph: Any) -> list[Any]:
    """Tensors of Constant nodes, by the names of their results."""
    found = []
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                tensor = type(attribute.t)(
                    name=node.output[0], data_type=attribute.t.data_type, dims=attribute.t.dims
                )
                found.append(tensor)
    return found
