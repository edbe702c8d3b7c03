"""Deep Compression (1510.00149): masks of removed weights, weights that share values, and files that are that small."""

from lianzhi.codebook.halves import fades_in_float16, fits_float16
from lianzhi.codebook.loading import example_inputs, load
from lianzhi.codebook.onnx import export_onnx, write_codes
from lianzhi.codebook.packing import float_bytes, pack, read, unpack
from lianzhi.codebook.report import Layer, PackReport

__all__ = [
    "Layer",
    "PackReport",
    "example_inputs",
    "export_onnx",
    "fades_in_float16",
    "fits_float16",
    "float_bytes",
    "load",
    "pack",
    "read",
    "unpack",
    "write_codes",
]
