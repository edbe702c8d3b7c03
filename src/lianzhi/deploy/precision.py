"""Which precision an ONNX file holds, by what it stores."""

from __future__ import annotations

import os
from typing import Any

from lianzhi.deploy.inspection import is_quantized, read_onnx

_UINT8, _INT8, _FLOAT16, _BFLOAT16, _UINT4, _INT4 = 2, 3, 10, 16, 21, 22  # ONNX's numbers of these types
_INTEGERS = {_UINT8: "int8", _INT8: "int8", _UINT4: "int4", _INT4: "int4"}


def held_precision(path: str | os.PathLike[str]) -> str:
    """The precision of a file by what it stores: "f32" where nothing is smaller than float32.

    Tables whose rows are looked up as integers count where nothing else is an integer: they are 8 bits beside any weights.
    """
    graph = read_onnx(path, weights=False).graph
    stored = {tensor.name: tensor for tensor in (*graph.initializer, *_constants(graph))}
    looked_up = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Gather"}
    weights: list[str] = []
    rows: list[str] = []
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        name = node.input[0]
        by_row = name in looked_up or _is_one(stored.get(node.input[1]))  # rows that were looked up at export
        (rows if by_row else weights).append(looked_up.get(name, name))
    integers = _integers(stored, weights) or _integers(stored, rows)
    if is_quantized(path):
        return "mixed" if len(integers) > 1 else next(iter(integers), "int8")
    if integers:
        return "mixed-weights" if len(integers) > 1 else f"{integers.pop()}-weights"
    floats = {tensor.data_type for tensor in stored.values() if len(tensor.dims) > 1}
    if _FLOAT16 in floats:
        return "f16-weights"
    return "bf16-weights" if _BFLOAT16 in floats else "f32"


def _integers(stored: dict[str, Any], names: list[str]) -> set[str]:
    """The kinds of integers among stored tensors of these names."""
    kinds = [stored[name].data_type for name in names if name in stored]
    return {_INTEGERS[kind] for kind in kinds if kind in _INTEGERS}


def _is_one(scale: Any) -> bool:
    """Whether a stored scale is a single 1."""
    from onnx import numpy_helper

    return scale is not None and not scale.dims and bool(numpy_helper.to_array(scale) == 1)


def _constants(graph: Any) -> list[Any]:
    """Tensors of Constant nodes, named as their results."""
    found = []
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                tensor = type(attribute.t)()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                found.append(tensor)
    return found
