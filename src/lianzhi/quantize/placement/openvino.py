"""OpenVINO on a CPU: quantizers on the inputs of ops with integer kernels.

The plug-in moves the quantizer of an input into the op before it, so nothing needs to be quantized only
because a kernel made it: a convolution whose result is read by float ops gives floats.
"""

from __future__ import annotations

from lianzhi.quantize.placement.plan import Rules

RULES = Rules(output_of=frozenset(), adds_inside=True)
