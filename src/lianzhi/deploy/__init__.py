"""Where a model runs: export, and one runtime a file."""

from lianzhi.deploy import oneflow, onnxruntime, openvino, pytorch, tensorrt
from lianzhi.deploy.inspection import is_quantized, onnx_example_inputs
from lianzhi.deploy.onnx import copy_onnx, export_onnx, write_onnx
from lianzhi.deploy.precision import held_precision
from lianzhi.deploy.runtime import (
    Runtime,
    load,
    onnx_runtimes,
    onnx_targets,
    quantized_like,
    registry,
    runs_here,
    stand_in,
    takes_onnx,
)
from lianzhi.deploy.session import Port, Session

__all__ = [
    "Port",
    "Runtime",
    "Session",
    "copy_onnx",
    "export_onnx",
    "held_precision",
    "is_quantized",
    "load",
    "oneflow",
    "onnx_example_inputs",
    "onnx_runtimes",
    "onnx_targets",
    "onnxruntime",
    "openvino",
    "pytorch",
    "quantized_like",
    "registry",
    "runs_here",
    "stand_in",
    "takes_onnx",
    "tensorrt",
    "write_onnx",
]
