"""Quantization: observers, placement per target, post-training quantization, export, lint."""

from lianzhi.quantize.from_cache import check_cache, is_tensorrt_cache, table_from_cache
from lianzhi.quantize.integers import rounded_nonzero, with_integers
from lianzhi.quantize.mixed import Sensitivity, allocate, sensitivity
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.observers import registry as observers_registry
from lianzhi.quantize.onnx_files import quantize_onnx, report_table
from lianzhi.quantize.options import (
    DEFAULT_OBSERVER,
    check_options,
    check_patterns,
    check_table,
    possible_precisions,
    reads_data,
)
from lianzhi.quantize.plain import plain
from lianzhi.quantize.ptq import registry as techniques_registry
from lianzhi.quantize.qat import make_trainable, same_grid, trained
from lianzhi.quantize.rules import Finding, lint
from lianzhi.quantize.scheme import INTEGERS
from lianzhi.quantize.speed import quantize_where_faster, with_speed
from lianzhi.quantize.table import CalibrationTable
from lianzhi.quantize.tensorrt_cache import file_amax, read_tensorrt_cache, write_tensorrt_cache
from lianzhi.quantize.workflow import quantize

__all__ = [
    "DEFAULT_OBSERVER",
    "INTEGERS",
    "CalibrationTable",
    "Finding",
    "QuantizedModel",
    "Sensitivity",
    "allocate",
    "check_cache",
    "check_options",
    "check_patterns",
    "check_table",
    "file_amax",
    "is_tensorrt_cache",
    "lint",
    "make_trainable",
    "observers_registry",
    "plain",
    "possible_precisions",
    "quantize",
    "quantize_onnx",
    "quantize_where_faster",
    "read_tensorrt_cache",
    "reads_data",
    "report_table",
    "rounded_nonzero",
    "same_grid",
    "sensitivity",
    "table_from_cache",
    "techniques_registry",
    "trained",
    "with_integers",
    "with_speed",
    "write_tensorrt_cache",
]
