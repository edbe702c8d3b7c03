"""Techniques of post-training quantization, one a file; each also is a plain function of tensors."""

from lianzhi.quantize.ptq.adaround import adaround
from lianzhi.quantize.ptq.bias_correction import bias_correction
from lianzhi.quantize.ptq.equalization import equalization
from lianzhi.quantize.ptq.gptq import gptq
from lianzhi.quantize.ptq.technique import REWRITE, Chosen, TechniqueConfig, choose, registry

__all__ = [
    "REWRITE",
    "Chosen",
    "TechniqueConfig",
    "adaround",
    "bias_correction",
    "choose",
    "equalization",
    "gptq",
    "registry",
]
