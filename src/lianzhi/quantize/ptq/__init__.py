"""Techniques of post-training quantization, one a file; each also is a plain function of tensors."""

from lianzhi.quantize.ptq.adaround import adaround
from lianzhi.quantize.ptq.awq import awq
from lianzhi.quantize.ptq.bias_absorption import bias_absorption
from lianzhi.quantize.ptq.bias_correction import bias_correction
from lianzhi.quantize.ptq.brecq import brecq
from lianzhi.quantize.ptq.equalization import equalization
from lianzhi.quantize.ptq.gptq import gptq
from lianzhi.quantize.ptq.smoothquant import smoothquant
from lianzhi.quantize.ptq.technique import REWRITE, Chosen, TechniqueConfig, choose, registry

__all__ = [
    "REWRITE",
    "Chosen",
    "TechniqueConfig",
    "adaround",
    "awq",
    "bias_absorption",
    "bias_correction",
    "brecq",
    "choose",
    "equalization",
    "gptq",
    "registry",
    "smoothquant",
]
