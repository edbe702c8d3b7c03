"""Quantization: observers, placement per target, post-training quantization, export, lint."""

from lianzhi.quantize.mixed import Sensitivity, allocate, sensitivity
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.observers import registry as observers_registry
from lianzhi.quantize.onnx_files import quantize_onnx, report_table
from lianzhi.quantize.ptq import registry as techniques_registry
from lianzhi.quantize.qat import make_trainable, same_grid, trained
from lianzhi.quantize.rules import Finding, lint
from lianzhi.quantize.scheme import WEIGHTS
from lianzhi.quantize.speed import quantize_where_faster
from lianzhi.quantize.table import CalibrationTable
from lianzhi.quantize.tensorrt_cache import read_tensorrt_cache, write_tensorrt_cache
from lianzhi.quantize.workflow import check_options, quantize

__all__ = [
    "WEIGHTS",
    "CalibrationTable",
    "Finding",
    "QuantizedModel",
    "Sensitivity",
    "allocate",
    "check_options",
    "lint",
    "make_trainable",
    "observers_registry",
    "quantize",
    "quantize_onnx",
    "quantize_where_faster",
    "read_tensorrt_cache",
    "report_table",
    "same_grid",
    "sensitivity",
    "techniques_registry",
    "trained",
    "write_tensorrt_cache",
]
