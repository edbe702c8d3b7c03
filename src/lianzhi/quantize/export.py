"""Write a quantized module as an ONNX file with Q/DQ nodes and integer initializers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lianzhi.deploy import write_onnx
from lianzhi.deploy.onnx import to_proto
from lianzhi.graph import TracedModule, capture
from lianzhi.quantize.affine import DEQUANTIZE, FAKE_TENSOR
from lianzhi.quantize.lower import lower

UINT8, INT8 = 2, 3  # ONNX's numbers of these types


def export_quantized(
    module: TracedModule, example_inputs: Any, path: str | os.PathLike[str], *, dynamic_batch: bool = True
) -> Path:
    """Store integers, translate to ONNX, check, write."""
    graph = capture(lower(module), example_inputs, dynamic_batch=dynamic_batch)
    return write_onnx(to_proto(graph, translations=_translations()), path)


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
