"""Rules on types and scales."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lianzhi import measure
from lianzhi.quantize.rules.finding import rule
from lianzhi.quantize.rules.qdq import QdqGraph, name_of

Found = Iterator[tuple[str, str, str]]
CPU = ("onnxruntime", "openvino")
ALL = (*CPU, "tensorrt")


@rule("symmetric-activations", "onnxruntime")
def symmetric_activations(graph: QdqGraph) -> Found:
    """Signed activations: on a CPU they run at float speed or below."""
    for node in graph.activations():
        zero = graph.zero_point(node)
        if zero is not None and zero.dtype == np.int8:
            yield (
                name_of(node),
                "the activation is int8; this runtime's fast kernels take uint8",
                "use uint8, affine",
            )


@rule("float-weights", *ALL)
def float_weights(graph: QdqGraph) -> Found:
    """Weights stored in float and quantized each time the model is loaded or run."""
    for node, reader in graph.weights():
        writer = graph.maker(reader.input[0], "QuantizeLinear") if reader is not None else None
        if writer is not None:
            yield (
                name_of(node),
                f"its weight '{writer.input[0]}' is stored in float and quantized in the graph, so the file does not shrink",
                "store the integers and keep only the DequantizeLinear node",
            )


@rule("per-tensor-weights", *ALL)
def per_tensor_weights(graph: QdqGraph) -> Found:
    """One scale for a whole convolution."""
    for node, reader in graph.weights():
        scale = graph.constant(reader.input[1]) if reader is not None else None
        if node.op_type == "Conv" and scale is not None and scale.size == 1:
            weight = graph.constant(reader.input[0])
            if weight is not None and weight.shape[0] > 1:
                yield (
                    name_of(node),
                    "its weight has one scale for all channels",
                    "use one scale an output channel",
                )


@rule("bad-scale", *ALL)
def bad_scale(graph: QdqGraph) -> Found:
    """Scales that are zero, negative, infinite or NaN."""
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = graph.constant(node.input[1])
        if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            yield (
                name_of(node),
                "a scale is not a positive number",
                "give constant tensors a small positive scale",
            )


@rule("saturating-weights", *CPU)
def saturating_weights(graph: QdqGraph) -> Found:
    """Eight-bit weights on a processor whose products of uint8 and int8 overflow."""
    if not measure.cpu().saturates:
        return
    for node, reader in graph.weights():
        weight = graph.constant(reader.input[0]) if reader is not None else None
        if (
            weight is not None
            and weight.dtype == np.int8
            and int(np.abs(weight.astype(np.int16)).max(initial=0)) > 64
        ):
            yield (
                name_of(node),
                "its weight has 8 bits, and this processor has no VNNI: sums of two products may overflow 16 bits",
                "quantize with reduce_range (7 bits), or run it on a processor with VNNI",
            )
