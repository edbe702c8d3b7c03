"""Rules on where quantizers stand: what keeps integer kernels from being used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lianzhi.quantize.guard import LOWEST
from lianzhi.quantize.rules.finding import rule
from lianzhi.quantize.rules.qdq import CLAMPS, WEIGHTED, QdqGraph, name_of

Found = Iterator[tuple[str, str, str]]
CPU = ("onnxruntime", "openvino")
ALL = (*CPU, "tensorrt")
MOVES = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice"}


@rule("batch-norm-not-folded", *ALL)
def batch_norm_not_folded(graph: QdqGraph) -> Found:
    """A BatchNorm that could be part of the convolution before it."""
    for node in graph.nodes:
        if node.op_type != "BatchNormalization":
            continue
        source = graph.makers.get(node.input[0])
        while source is not None and source.op_type in ("DequantizeLinear", "QuantizeLinear"):
            source = graph.makers.get(source.input[0])
        if source is not None and source.op_type in WEIGHTED:
            yield (
                name_of(node),
                f"BatchNorm stands behind {source.op_type} '{name_of(source)}', whose kernel cannot be fused",
                "fold it into the weights before quantizing",
            )


@rule("quantizer-before-relu", *ALL)
def quantizer_before_relu(graph: QdqGraph) -> Found:
    """A pair of Q and DQ between an op and its ReLU."""
    for node in graph.nodes:
        if node.op_type not in CLAMPS or _changes_nothing(graph, node):
            continue
        reader = graph.maker(node.input[0], "DequantizeLinear")
        writer = graph.maker(reader.input[0], "QuantizeLinear") if reader is not None else None
        source = graph.makers.get(writer.input[0]) if writer is not None else None
        if (
            source is not None
            and source.op_type in (*WEIGHTED, "Add")
            and len(graph.readers[reader.output[0]]) == 1
        ):
            yield (
                name_of(writer),
                f"a quantizer stands between {source.op_type} '{name_of(source)}' and its {node.op_type}",
                f"move it behind '{name_of(node)}'",
            )


def _changes_nothing(graph: QdqGraph, node: Any) -> bool:
    """Whether this is the Clip that keeps ONNX Runtime from rounding a float layer."""
    least = graph.constant(node.input[1]) if len(node.input) == 2 else None
    return least is not None and float(least) <= LOWEST


@rule("half-quantized", *ALL)
def half_quantized(graph: QdqGraph) -> Found:
    """An op with a quantized input and a float weight, or the other way round, unless only weights are quantized."""
    values = any(node.op_type == "QuantizeLinear" for node in graph.nodes)
    for node, reader in graph.weights():
        fed = graph.maker(node.input[0], "DequantizeLinear") is not None
        if fed and reader is None:
            yield name_of(node), "its input is quantized and its weight is float", "quantize the weight too"
        if reader is not None and not fed and values:
            yield name_of(node), "its weight is quantized and its input is float", "quantize its input too"


@rule("output-not-quantized", "onnxruntime")
def output_not_quantized(graph: QdqGraph) -> Found:
    """A convolution between quantized inputs whose result is not quantized."""
    for node, reader in graph.weights():
        if node.op_type != "Conv" or reader is None:
            continue
        if graph.maker(node.input[0], "DequantizeLinear") is None:
            continue
        name = node.output[0]
        readers = graph.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in CLAMPS:
            name = readers[0].output[0]
            readers = graph.readers.get(name, [])
        if name in graph.outputs or any(item.op_type != "QuantizeLinear" for item in readers):
            yield (
                name_of(node),
                "its result is not quantized, so it runs in float after dequantizing its weight each time",
                "put a quantizer behind it (behind its ReLU, if it has one)",
            )


@rule("scale-changes-in-a-move", *CPU)
def scale_changes(graph: QdqGraph) -> Found:
    """An op that only moves values, between quantizers of different scale."""
    for node in graph.nodes:
        before = (
            graph.maker(node.input[0], "DequantizeLinear") if node.op_type in MOVES and node.input else None
        )
        if before is None:
            continue
        for after in graph.readers.get(node.output[0], []):
            if after.op_type == "QuantizeLinear" and list(after.input[1:]) != list(before.input[1:]):
                old, new = graph.constant(before.input[1]), graph.constant(after.input[1])
                if old is None or new is None or old.shape != new.shape or (old != new).any():
                    yield (
                        name_of(node),
                        f"{node.op_type} moves values, and its quantizers have different scales",
                        "give both sides the same scale and zero point",
                    )


@rule("reduces-reshaped-integers", "openvino")
def reduces_reshaped_integers(graph: QdqGraph) -> Found:
    """A sum or mean over a reshaped quantized value: OpenVINO 2026.4 gives wrong numbers for batches."""
    for node in graph.nodes:
        shaped = graph.makers.get(node.input[0]) if node.op_type in ("ReduceMean", "ReduceSum") else None
        if shaped is None or shaped.op_type not in ("Reshape", "Flatten", "Squeeze"):
            continue
        if graph.maker(shaped.input[0], "DequantizeLinear") is not None:
            yield (
                name_of(node),
                f"{node.op_type} reads a quantized value through '{name_of(shaped)}', which this runtime computes wrongly",
                "put no quantizer on that value, or reduce before reshaping",
            )
