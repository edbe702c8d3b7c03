"""Write a quantized module as an ONNX file with Q/DQ nodes and integer initializers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lianzhi.deploy import write_onnx
from lianzhi.deploy.onnx import to_proto
from lianzhi.graph import TracedModule, are_tokens, capture
from lianzhi.quantize.affine import DEQUANTIZE, FAKE_TENSOR
from lianzhi.quantize.guard import guard_float_layers
from lianzhi.quantize.lower import lower
from lianzhi.quantize.storage import block_groups, pack_int4, store_floats

UINT8, INT8 = 2, 3  # ONNX's numbers of these types


def export_quantized(
    module: TracedModule,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    guard: bool = True,
    storage: str = "",
) -> Path:
    """Store integers, translate to ONNX, check, write.

    `guard`: ONNX Runtime must not round float layers. `storage`: the type of the weights of a model without integers.
    """
    tokens = dynamic_batch and are_tokens(example_inputs)
    graph = capture(lower(module), example_inputs, dynamic_batch=dynamic_batch, dynamic_length=tokens)
    proto = to_proto(graph, translations=_translations())
    pad_integers(proto)
    if storage:
        store_floats(proto, storage)
    block_groups(proto)
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
