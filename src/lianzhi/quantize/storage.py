"""How an ONNX file stores weights: 4-bit integers two a byte, scales a group, and floats of 16 bits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from lianzhi.errors import GraphError

FLOAT, INT8, BFLOAT16, INT4 = 1, 3, 16, 22  # ONNX's numbers of these types
INT4_NAME = re.compile(r"_int4(_\d+)?$")
OPSET = 21  # the first in which DequantizeLinear takes int4, and blocks
LARGEST_FLOAT16 = 65504.0


def block_groups(proto: Any) -> None:
    """Give DequantizeLinear the size of its blocks where a scale is a matrix ``(out, groups)``, in place."""
    from onnx import helper

    stored = {item.name: item for item in proto.graph.initializer}
    for node in proto.graph.node:
        scale = stored.get(node.input[1]) if node.op_type == "DequantizeLinear" else None
        if scale is None or len(scale.dims) != 2:
            continue
        size = stored[node.input[0]].dims[1] // scale.dims[1]
        del node.input[2:]  # the zero point is 0
        node.attribute.append(helper.make_attribute("block_size", size))
        _require_opset(proto)
    _drop_unused(proto)


def pack_int4(proto: Any) -> None:
    """Store 4-bit weights two a byte, in place: they came as int8 tensors named ``…_int4``."""
    from onnx import TensorProto, numpy_helper

    stored = {item.name: item for item in proto.graph.initializer}
    packed = False
    for node in proto.graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if tensor is None or not INT4_NAME.search(tensor.name):
            continue
        del node.input[2:]  # a zero point of 0 would have to be int4 as well
        if tensor.data_type == INT8:
            values = numpy_helper.to_array(tensor).reshape(-1).astype(np.uint8) & 0xF
            pairs = np.append(values, np.zeros(len(values) % 2, np.uint8)).reshape(-1, 2)
            new = TensorProto(name=tensor.name, data_type=INT4, dims=tensor.dims)
            new.raw_data = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()
            tensor.CopyFrom(new)
        packed = True
    if packed:
        _require_opset(proto)
        _drop_unused(proto)
        names = {item.name: item.data_type for item in proto.graph.initializer}
        for info in proto.graph.value_info:
            if names.get(info.name) == INT4:
                info.type.tensor_type.elem_type = INT4


def store_floats(proto: Any, name: str) -> None:
    """Store the weights of a float model as float16, with which it computes, or as bfloat16, in place.

    In float16 every op computes in it, and inputs and outputs stay float32. bfloat16 holds the weights of two
    dimensions and more; a Cast makes float32 of them, in which everything is computed. "float32" changes nothing.
    """
    if name == "float16":
        _to_float16(proto)
    elif name == "bfloat16":
        _to_bfloat16(proto)


def _to_float16(proto: Any) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        converted = convert_float_to_float16(
            proto, keep_io_types=True, max_finite_val=LARGEST_FLOAT16, disable_shape_infer=False
        )
    except Exception as error:  # the converter fails in ways of its own
        raise GraphError(
            f"the model cannot be converted to float16 ({str(error)[:200]}); take weights='bfloat16' or 'float32'"
        ) from error
    proto.CopyFrom(converted)
    del proto.graph.value_info[:]
    _set_nodes(proto, _in_order(proto.graph))  # the converter puts its Casts at the end


def _to_bfloat16(proto: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != FLOAT or len(tensor.dims) < 2:
            continue
        bits = np.ascontiguousarray(numpy_helper.to_array(tensor)).view(np.uint32)
        even = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even
        new = TensorProto(name=f"{tensor.name}_bfloat16", data_type=BFLOAT16, dims=tensor.dims)
        new.raw_data = even.astype(np.uint16).tobytes()
        casts.append(helper.make_node("Cast", [new.name], [tensor.name], f"{tensor.name}_cast", to=FLOAT))
        tensor.CopyFrom(new)
    _set_nodes(proto, [*casts, *proto.graph.node])


def _in_order(graph: Any) -> list[Any]:
    """The nodes, each after those whose results it reads, also inside of its subgraphs; else as they were."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    done: set[int] = set()
    ordered: list[Any] = []
    for start in range(len(graph.node)):
        waiting = [start]
        while waiting:
            index = waiting[-1]
            missing = [makers[name] for name in _reads(graph.node[index]) if name in makers]
            missing = [item for item in missing if item not in done and item != index]
            if missing and index not in done:
                waiting += missing
                continue
            waiting.pop()
            if index not in done:
                done.add(index)
                ordered.append(graph.node[index])
    return ordered


def _reads(node: Any) -> list[str]:
    inside = [item for attribute in node.attribute for item in attribute.g.node]
    return [*node.input, *(name for item in inside for name in _reads(item))]


def _set_nodes(proto: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _require_opset(proto: Any) -> None:
    for item in proto.opset_import:
        if item.domain == "":
            item.version = max(item.version, OPSET)


def _drop_unused(proto: Any) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    used |= {item.name for item in proto.graph.output}
    for tensor in [item for item in proto.graph.initializer if item.name not in used]:
        proto.graph.initializer.remove(tensor)
