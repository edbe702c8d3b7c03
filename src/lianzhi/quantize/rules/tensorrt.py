"""Rules of TensorRT: what its parser refuses, and what keeps its builder from fusing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lianzhi.quantize.rules.finding import rule
from lianzhi.quantize.rules.qdq import CLAMPS, QdqGraph, name_of

Found = Iterator[tuple[str, str, str]]
T = "tensorrt"
LEAST = 16
INTEGER_OPS = {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "QLinearAdd",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
}


@rule("integer-bias", T)
def integer_bias(graph: QdqGraph) -> Found:
    """A bias in int32 behind a DequantizeLinear, which the parser refuses."""
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        value = graph.constant(node.input[0])
        if value is not None and value.dtype == np.int32:
            yield (
                name_of(node),
                "it dequantizes an int32 bias, which TensorRT's parser refuses",
                "store the bias in float32",
            )


@rule("affine-activations", T)
def affine_activations(graph: QdqGraph) -> Found:
    """uint8, or a zero point that is not 0: TensorRT's int8 is symmetric."""
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = graph.zero_point(node)
        if zero is None:
            if node.op_type == "QuantizeLinear" and not _output_type(node):
                yield (
                    name_of(node),
                    "it has no zero point, so its result is uint8",
                    "give it a zero point of int8 0",
                )
        elif zero.dtype == np.uint8 or zero.any():
            yield (
                name_of(node),
                f"its zero point is {zero.dtype} {int(zero.reshape(-1)[0])}; TensorRT takes int8 with zero point 0",
                "quantize symmetrically to int8",
            )


@rule("per-channel-activations", T)
def per_channel_activations(graph: QdqGraph) -> Found:
    """Activations with a scale a channel."""
    for node in graph.activations():
        scale = graph.constant(node.input[1])
        if scale is not None and scale.size > 1:
            yield name_of(node), f"an activation has {scale.size} scales", "give each activation one scale"


@rule("integer-operators", T)
def integer_operators(graph: QdqGraph) -> Found:
    """Operators on integers of ONNX Runtime's own format."""
    for node in graph.nodes:
        if node.op_type in INTEGER_OPS:
            yield (
                name_of(node),
                f"TensorRT has no {node.op_type}",
                "write QuantizeLinear and DequantizeLinear around the float operator",
            )


@rule("sum-quantized-on-both-sides", T)
def sum_on_both_sides(graph: QdqGraph) -> Found:
    """A residual sum whose convolution's branch is quantized: the kernel could have added by itself."""
    for node in graph.nodes:
        if node.op_type != "Add" or len(node.input) != 2:
            continue
        readers = [graph.maker(name, "DequantizeLinear") for name in node.input]
        if any(reader is None for reader in readers):
            continue
        made = [_behind(graph, reader) for reader in readers]
        convolutions = [
            item
            for item in made
            if item is not None and item.op_type == "Conv" and len(graph.readers[item.output[0]]) == 1
        ]
        if convolutions:
            yield (
                name_of(node),
                f"both branches are quantized, also the one of '{name_of(convolutions[-1])}'",
                "quantize the other branch alone, so that the convolution takes the sum into its kernel",
            )


@rule("concatenated-scales-differ", T)
def concatenated_scales(graph: QdqGraph) -> Found:
    """Inputs of a concatenation with different scales: they are quantized again."""
    for node in graph.nodes:
        if node.op_type != "Concat":
            continue
        readers = [graph.maker(name, "DequantizeLinear") for name in node.input]
        scales = [graph.constant(reader.input[1]) for reader in readers if reader is not None]
        values = {float(scale.reshape(-1)[0]) for scale in scales if scale is not None and scale.size == 1}
        if len(values) > 1:
            yield (
                name_of(node),
                f"its inputs have {len(values)} different scales",
                "give all of them, and the result, one scale",
            )


@rule("quantized-twice", T)
def quantized_twice(graph: QdqGraph) -> Found:
    """A value with several quantizers: each is an op of its own."""
    for name, readers in graph.readers.items():
        writers = [node for node in readers if node.op_type == "QuantizeLinear" and node.input[0] == name]
        if len(writers) > 1:
            yield (
                name_of(writers[1]),
                f"'{name}' has {len(writers)} quantizers",
                "let all readers share one pair of QuantizeLinear and DequantizeLinear",
            )


@rule("too-few-channels", T)
def too_few_channels(graph: QdqGraph) -> Found:
    """Int8 convolutions and products that are too narrow to be faster than float."""
    first = {item.name for item in graph.proto.graph.input}
    for node, reader in graph.weights():
        shape = _stored_shape(graph, reader)
        if shape is None or len(shape) < 2:
            continue
        source = graph.maker(node.input[0], "DequantizeLinear")
        writer = graph.maker(source.input[0], "QuantizeLinear") if source is not None else None
        if "Conv" in node.op_type and writer is not None and writer.input[0] in first:
            continue
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        widths = (shape[0], shape[1] * groups) if "Conv" in node.op_type else shape[-2:]
        widths = (
            widths[::-1] if node.op_type == "ConvTranspose" else widths
        )  # its weights are (in, out / groups)
        if min(widths) < LEAST:
            yield (
                name_of(node),
                f"{node.op_type} of {widths[1]} to {widths[0]} is no faster in int8",
                f"leave it in float: it has a side below {LEAST}",
            )


def _stored_shape(graph: QdqGraph, reader: Any) -> tuple[int, ...] | None:
    weight = graph.constant(reader.input[0]) if reader is not None else None
    return None if weight is None else weight.shape


def _behind(graph: QdqGraph, reader: Any) -> Any:
    """What made the value that a DequantizeLinear gives back: seen through its quantizer and a clamp."""
    writer = graph.maker(reader.input[0], "QuantizeLinear")
    node = graph.makers.get(writer.input[0]) if writer is not None else None
    return None if node is not None and node.op_type in CLAMPS else node


def _output_type(node: Any) -> int:
    """The attribute `output_dtype` of opset 21, or 0."""
    return next((item.i for item in node.attribute if item.name == "output_dtype"), 0)
