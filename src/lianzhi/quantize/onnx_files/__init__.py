"""Quantize float ONNX files that were made elsewhere."""

from lianzhi.quantize.onnx_files.table import report_table
from lianzhi.quantize.onnx_files.workflow import quantize_onnx

__all__ = ["quantize_onnx", "report_table"]
