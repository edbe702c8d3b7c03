"""The arithmetic of affine quantization: ranges to scales, integers to reals and back, and their ops.

Fake quantization is PyTorch's own ``fake_quantize_per_*_affine`` (round half to even, straight-through
gradients inside the range); `lianzhi::fake_quantize_groups` is the same for a weight ``(out, in)`` of which each row is
cut into groups with a scale each, ``(out, groups)``. PyTorch 2.13 has no shape function for what these ops turn into while being
traced with a free batch; it is registered here. `lianzhi::dequantize` reads a tensor that is stored in
integers, and becomes one DequantizeLinear node in ONNX; `lianzhi::dequantize_rows` reads rows of one by index.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor

from lianzhi.quantize.scheme import Scheme

MIN_SCALE = 2.0**-32

aten = torch.ops.aten
FAKE_TENSOR = aten.fake_quantize_per_tensor_affine.tensor_qparams
FAKE_CHANNEL = aten.fake_quantize_per_channel_affine.default
GROUPS = "lianzhi::fake_quantize_groups"


def qparams(low: Tensor, high: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of a range, which is widened to hold 0.

    >>> qparams(torch.tensor(-1.0), torch.tensor(1.55), Scheme(8, signed=False, symmetric=False))
    (tensor(0.0100), tensor(100, dtype=torch.int32))

    A range of no width (a constant 0, a channel of zeros) gets the least positive scale, 2**-32.
    """
    low, high = low.double().clamp(max=0.0), high.double().clamp(min=0.0)
    if scheme.symmetric:
        scale = torch.maximum(-low, high) / (scheme.qmax if scheme.signed else scheme.levels)
        scale = scale.clamp(min=MIN_SCALE).float()
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = ((high - low) / scheme.levels).clamp(min=MIN_SCALE).float()
    zero_point = (scheme.qmin - low / scale.double()).round().clamp(scheme.qmin, scheme.qmax)
    return scale, zero_point.to(torch.int32)


def quantize_symmetric(values: Tensor, scale: Tensor, qmin: int, qmax: int, axis: int = 0) -> Tensor:
    """The integers (int32) of a tensor with zero point 0; the scale is a scalar, or a vector along `axis`.

    >>> quantize_symmetric(torch.tensor([-9.0, 0.0, 0.31]), torch.tensor(0.1), -64, 64).tolist()
    [-64, 0, 3]
    """
    inverse = 1.0 / along(scale, values, axis)  # as PyTorch's own kernels do, so that both round alike
    return torch.clamp((values * inverse).round().double(), qmin, qmax).to(torch.int32)


def dequantize_symmetric(integers: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
    """The reals of integers with zero point 0.

    >>> dequantize_symmetric(torch.tensor([[1], [2]], dtype=torch.int8), torch.tensor([0.5, 0.25])).tolist()
    [[0.5], [0.5]]
    """
    return integers.to(torch.float32) * along(scale, integers, axis)


def fake_quantize(values: Tensor, scale: Tensor, zero_point: Tensor, scheme: Scheme, axis: int = 0) -> Tensor:
    """Round to the grid and back, with straight-through gradients.

    >>> fake_quantize(torch.tensor([0.14, 99.0]), torch.tensor(0.1), torch.tensor(0, dtype=torch.int32), Scheme(8))
    tensor([ 0.1000, 12.7000])
    """
    result: Tensor
    if scale.dim():
        result = FAKE_CHANNEL(values, scale, zero_point, axis, scheme.qmin, scheme.qmax)
    else:
        result = FAKE_TENSOR(values, scale, zero_point, scheme.qmin, scheme.qmax)
    return result


def round_to_grid(values: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """What PyTorch's fake quantization of a whole tensor computes of finite values, bit for bit and several times faster.

    >>> round_to_grid(torch.tensor([0.14, 99.0]), torch.tensor(0.1), torch.tensor(0), -127, 127)
    tensor([ 0.1000, 12.7000])

    Its kernel keeps a mask for the gradients, and takes one value at a time; here there are no gradients.
    """
    if values.dtype != torch.float32:
        exact: Tensor = FAKE_TENSOR(values, scale, zero_point, qmin, qmax)
        return exact
    zero = int(zero_point)
    return (values * scale.reciprocal()).round_().clamp_(qmin - zero, qmax - zero).mul_(scale)


def sqnr(signal: Tensor, noisy: Tensor) -> float:
    """Signal-to-quantization-noise ratio in decibels; 200 where there is no noise.

    >>> round(sqnr(torch.ones(4), torch.full((4,), 0.9)), 3)
    20.0
    """
    noise = float((signal.double() - noisy.double()).square().sum())
    return decibels(float(signal.double().square().sum()), noise)


def decibels(signal: float, noise: float) -> float:
    """Ten times the decimal logarithm of a ratio of powers, kept within ±200.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
    (20.0, 200.0)
    """
    if noise <= 0:
        return 200.0
    return max(-200.0, min(200.0, 10 * math.log10(signal / noise))) if signal > 0 else -200.0


def along(vector: Tensor, values: Tensor, axis: int) -> Tensor:
    """A vector shaped so that it goes along one axis of `values`; a scalar as it is.

    A matrix holds a value for each of the groups into which the last axis is cut.
    """
    if vector.dim() == 0:
        return vector
    if vector.dim() == 2:
        return vector.repeat_interleave(values.shape[1] // vector.shape[1], 1)
    shape = [1] * values.dim()
    shape[axis] = -1
    return vector.view(shape)


def _dequantize_rows(integers: Tensor, scale: Tensor, indices: Tensor) -> Tensor:
    """Rows of a table ``(rows, width)``, with a scale each ``(rows, 1)``."""
    return torch.embedding(integers, indices).to(torch.float32) * torch.embedding(scale, indices)


def _fake_groups(
    values: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """Each group is a row of its own. `axis` is 1, that of the groups."""
    rows = values.reshape(scale.numel(), -1)
    rounded: Tensor = FAKE_CHANNEL(rows, scale.flatten(), zero_point.flatten(), 0, quant_min, quant_max)
    return rounded.reshape(values.shape)


def _register() -> None:
    """Shape functions of PyTorch's ops, and the op that reads stored integers."""

    def same_shape(values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)

    for name in (
        "fake_quantize_per_tensor_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        "fake_quantize_per_channel_affine_cachemask",
    ):
        with contextlib.suppress(RuntimeError):  # a later PyTorch brings its own
            torch.library.register_fake(f"aten::{name}", same_shape)
    arguments = "Tensor values, Tensor scale, Tensor zero_point, int axis, int quant_min, int quant_max"
    torch.library.define(GROUPS, f"({arguments}) -> Tensor")
    torch.library.impl(GROUPS, "CompositeImplicitAutograd")(_fake_groups)
    torch.library.define("lianzhi::dequantize", "(Tensor integers, Tensor scale, int axis) -> Tensor")
    torch.library.impl("lianzhi::dequantize", "default")(dequantize_symmetric)
    torch.library.register_fake("lianzhi::dequantize")(
        lambda integers, *_: torch.empty_like(integers, dtype=torch.float32)
    )
    torch.library.define(
        "lianzhi::dequantize_rows", "(Tensor integers, Tensor scale, Tensor indices) -> Tensor"
    )
    torch.library.impl("lianzhi::dequantize_rows", "default")(_dequantize_rows)
    torch.library.register_fake("lianzhi::dequantize_rows")(
        lambda integers, _, indices: integers.new_empty(
            (*indices.shape, integers.shape[1]), dtype=torch.float32
        )
    )


if not hasattr(torch.ops.lianzhi, "dequantize"):
    _register()
DEQUANTIZE = torch.ops.lianzhi.dequantize.default
DEQUANTIZE_ROWS = torch.ops.lianzhi.dequantize_rows.default
FAKE_GROUPS = torch.ops.lianzhi.fake_quantize_groups.default
FAKE_WEIGHT = (FAKE_CHANNEL, FAKE_GROUPS)
