"""Write a quantized module as an ONNX file with Q/DQ nodes and integer initializers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from lianzhi.deploy import write_onnx
from lianzhi.deploy.onnx import to_proto
from lianzhi.graph import TracedModule, are_tokens, capture
from lianzhi.quantize.affine import DEQUANTIZE, FAKE_TENSOR
from lianzhi.quantize.guard import guard_float_layers
from lianzhi.quantize.lower import lower

UINT8, INT8, INT4 = 2, 3, 22  # ONNX's numbers of these types
INT4_NAME = re.compile(r"_int4(_\d+)?$")
INT4_OPSET = 21  # the first in which DequantizeLinear takes int4


def export_quantized(
    module: TracedModule,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    guard: bool = True,
) -> Path:
    """Store integers, translate to ONNX, check, write. `guard`: ONNX Runtime must not round float layers."""
    tokens = dynamic_batch and are_tokens(example_inputs)
    graph = capture(lower(module), example_inputs, dynamic_batch=dynamic_batch, dynamic_length=tokens)
    proto = to_proto(graph, translations=_translations())
    pad_integers(proto)
    pack_int4(proto)
    if guard:
        guard_float_layers(proto)
    return write_onnx(proto, path)


def _translations() -> dict[Any, Any]:
    """ONNX functions for the two quantization ops."""
    from onnxscript import opset18 as op

    def fake_tensor(values, scale, zero_point, quant_min: int, quant_max: int):  # type: ignore[no-untyped-def]
        zero = op.Cast(zero_point, to=UINT8 if quant_min == 0 else INT8)
        return op.DequantizeLinear(op.QuantizeLinear(values, scale, zero), scale, zero)

    def dequantize(integers, scale, axis: int):  # type: ignore[no-untyped-def]
        if integers.dtype != INT8:
            return op.DequantizeLinear(integers, scale, axis=axis)
        # ONNX Runtime's Gemm kernel wants the zero point of a weight written out
        zero = op.Expand(op.CastLike(0, integers), op.Shape(scale))
        return op.DequantizeLinear(integers, scale, zero, axis=axis)

    return {FAKE_TENSOR: fake_tensor, DEQUANTIZE: dequantize}


def pad_integers(proto: Any) -> None:
    """Pad with zeros between integers, where both sides have the same scale, in place.

    ONNX Runtime has no rule that does it: it would go to float and back.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for pad in [node for node in proto.graph.node if node.op_type == "Pad"]:
        before, after = makers.get(pad.input[0]), readers.get(pad.output[0], [])
        if before is None or before.op_type != "DequantizeLinear" or len(after) != 1:
            continue
        if after[0].op_type != "QuantizeLinear" or list(after[0].input[1:]) != list(before.input[1:]):
            continue
        if len(pad.input) > 2 and pad.input[2]:
            continue
        del pad.input[2:]
        pad.input[0] = before.input[0]
        pad.input.append(before.input[2])  # the integer that stands for 0
        pad.output[0] = after[0].output[0]
        proto.graph.node.remove(after[0])


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
        for item in proto.opset_import:
            if item.domain == "":
                item.version = max(item.version, INT4_OPSET)
        used = {name for node in proto.graph.node for name in node.input}
        used |= {item.name for item in proto.graph.output}
        for tensor in [item for item in proto.graph.initializer if item.name not in used]:
            proto.graph.initializer.remove(tensor)
        names = {item.name: item.data_type for item in proto.graph.initializer}
        for info in proto.graph.value_info:
            if names.get(info.name) == INT4:
                info.type.tensor_type.elem_type = INT4
