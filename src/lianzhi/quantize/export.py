"""Write a quantized module as an ONNX file with Q/DQ nodes and integer initializers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lianzhi.deploy import write_onnx
from lianzhi.deploy.onnx import to_proto
from lianzhi.graph import TracedModule, are_tokens, capture
from lianzhi.quantize.affine import DEQUANTIZE, DEQUANTIZE_ROWS, FAKE_TENSOR
from lianzhi.quantize.guard import guard_float_layers
from lianzhi.quantize.lower import lower
from lianzhi.quantize.orient import orient_weights
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
    pad_inside(proto)
    drop_unread(proto)
    if storage:
        store_floats(proto, storage)
    block_groups(proto)
    orient_weights(proto)
    pack_int4(proto)
    if guard:
        guard_float_layers(proto)
    return write_onnx(proto, path)


def _translations() -> dict[Any, Any]:
    """ONNX functions for the quantization ops."""
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

    def dequantize_rows(integers, scale, indices):  # type: ignore[no-untyped-def]
        # with scales of its own for each row a DequantizeLinear would have to stand before the look-up
        rows = op.DequantizeLinear(op.Gather(integers, indices), 1.0, op.CastLike(0, integers))
        return op.Mul(rows, op.Gather(scale, indices))

    return {FAKE_TENSOR: fake_tensor, DEQUANTIZE: dequantize, DEQUANTIZE_ROWS: dequantize_rows}


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


def drop_unread(proto: Any) -> None:
    """Remove nodes whose results nobody reads, in place: runtimes compute them all the same."""
    if any(item.HasField("g") or item.graphs for node in proto.graph.node for item in node.attribute):
        return  # a subgraph may read them
    read = {item.name for item in proto.graph.output}
    kept = []
    for node in reversed(list(proto.graph.node)):
        if read.intersection(node.output):
            kept.append(node)
            read.update(node.input)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(kept))


def pad_inside(proto: Any) -> None:
    """Let a convolution add the zeros that a Pad of integers puts before it, in place: asymmetric ones it can as well."""
    from onnx import helper, numpy_helper

    stored = {item.name: item for item in proto.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {item.name for item in proto.graph.output}
    for pad in [node for node in proto.graph.node if node.op_type == "Pad" and node.input[1] in stored]:
        after = readers.get(pad.output[0], [])
        if len(after) != 1 or after[0].op_type != "DequantizeLinear" or after[0].input[2:] != pad.input[2:3]:
            continue
        convolutions = readers.get(after[0].output[0], [])
        given = [{item.name: item for item in node.attribute} for node in convolutions]
        sides = numpy_helper.to_array(stored[pad.input[1]]).reshape(2, -1)
        if (
            any(node.op_type != "Conv" or node.input[0] != after[0].output[0] for node in convolutions)
            or any(item["auto_pad"].s not in (b"NOTSET", b"VALID") for item in given if "auto_pad" in item)
            or any(item.s != b"constant" for item in pad.attribute if item.name == "mode")
            or sides[:, :2].any()
            or (sides < 0).any()
            or kept.intersection([pad.output[0], after[0].output[0]])
            or len(pad.input) > 3
        ):
            continue
        for node, attributes in zip(convolutions, given, strict=True):
            own = list(attributes["pads"].ints) if "pads" in attributes else [0] * sides[:, 2:].size
            for name in {"pads", "auto_pad"} & attributes.keys():
                node.attribute.remove(attributes[name])
            sums = [int(a + b) for a, b in zip(own, sides[:, 2:].reshape(-1), strict=True)]
            node.attribute.append(helper.make_attribute("pads", sums))
        after[0].input[0] = pad.input[0]
        proto.graph.node.remove(pad)
