"""ONNX Runtime on a CPU: quantizers on both sides of every op with an integer kernel.

The runtime fuses ``DequantizeLinear → op → QuantizeLinear`` into one kernel, so a convolution's result is
always quantized, after its ReLU. A linear layer may give floats, which keeps logits exact. Activations are
uint8 and affine: with signed symmetric ones the same graph runs at float speed.
"""

from __future__ import annotations

from lianzhi.quantize.placement.plan import Rules

RULES = Rules()
