"""Learned step size quantization (1902.08153): fake quantization whose scale learns.

With ``v = x/s``, ``q = round(v) + z`` and ``x^ = (clamp(q, qmin, qmax) - z)·s`` the gradients are::

    ∂x^/∂x = 1 where qmin <= q <= qmax, else 0
    ∂x^/∂s = round(v) - v inside, qmin - z below, qmax - z above

and that of the scale is multiplied by ``1/√(n·qmax)``, n the number of values that a scale serves (those of one
sample for activations, of one channel for weights), so that scale and weights learn at like rates.

What differs from the paper: a value counts as inside if its rounding is, as in PyTorch's own fake quantization (the
paper: if ``v`` is); a zero point, which stays as it was calibrated; the start, which is that of calibration; and
what the optimizer sees, see `relative`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LEAST = 2.0**-10  # of the scale's start: a scale stays positive


def lsq(values: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int = 0) -> Tensor:
    """Round to the grid and back; gradients flow to the values and to the scale.

    >>> scale = torch.tensor(0.5, requires_grad=True)
    >>> values = torch.tensor([[0.6, 9.0]], requires_grad=True)
    >>> rounded = lsq(values, scale, torch.tensor(0), -4, 4)
    >>> rounded.sum().backward(); rounded.tolist(), values.grad.tolist()
    ([[0.5, 2.0]], [[1.0, 0.0]])
    >>> round(float(scale.grad) * (2 * 4) ** 0.5, 4)  # 1 - 1.2 for the first value, 4 for the second
    3.8

    A scale of one dimension goes along `axis`; one without is for the whole tensor, whose first dimension
    is the batch.
    """
    with torch.autocast(values.device.type, enabled=False):
        return _LSQ.apply(values.float(), scale, zero_point, qmin, qmax, axis)  # type: ignore[no-any-return]


def relative(scale: Tensor, factor: Tensor) -> Tensor:
    """The scale as it started times what was learned; the gradient of the factor is divided by the start.

    So a step of plain gradient descent changes the scale as LSQ's own does, and a step of Adam, whose size is the
    learning rate whatever the gradient, changes it by that share of itself.

    >>> factor = torch.ones((), requires_grad=True)
    >>> (3 * relative(torch.tensor(0.01), factor)).backward(); float(factor.grad)
    300.0
    """
    return _Relative.apply(scale, factor)  # type: ignore[no-any-return]


class _LSQ(torch.autograd.Function):
    """The forward pass is PyTorch's fake quantization to the last bit, in fewer nanoseconds a value."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int
    ) -> Tensor:
        ctx.save_for_backward(values, scale, zero_point)
        ctx.grid = qmin, qmax, axis
        low, high = _bounds(zero_point, values, qmin, qmax, axis)
        step = _along(scale, values, axis)
        return (values * (1.0 / step)).round_().clamp_(low, high).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, scale, zero_point = ctx.saved_tensors
        (qmin, qmax, axis), gradient = ctx.grid, gradients[0]
        scaled = values * (1.0 / _along(scale, values, axis))
        rounded = scaled.round()
        clamped = rounded.clamp(*_bounds(zero_point, values, qmin, qmax, axis))
        inner = gradient * (rounded == clamped)
        if not ctx.needs_input_grad[1]:
            return inner, None, None, None, None, None
        if scale.dim():
            dims = [dim for dim in range(values.dim()) if dim != axis]
            each = gradient * clamped - inner * scaled
            of_scale, groups = each.sum(dims) if dims else each, values.shape[axis]
        else:
            of_scale = _product(gradient, clamped) - _product(inner, scaled)
            groups = values.shape[0] if values.dim() else 1
        count = max(1, values.numel() // max(1, groups))
        return inner, of_scale / math.sqrt(count * qmax), None, None, None, None


class _Relative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return scale * factor.clamp(min=LEAST)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        return None, gradients[0] / scale


def _bounds(zero_point: Tensor, values: Tensor, qmin: int, qmax: int, axis: int) -> Any:
    """The least and the largest of ``q - z``: numbers where that costs no waiting for an accelerator."""
    if zero_point.dim() == 0 and zero_point.device.type == "cpu":
        return qmin - int(zero_point), qmax - int(zero_point)
    zero = _along(zero_point, values, axis)
    return qmin - zero, qmax - zero


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The sum of all products, without a tensor of them."""
    if right.dim() == 4 and right.is_contiguous(memory_format=torch.channels_last):
        left, right = left.permute(0, 2, 3, 1), right.permute(0, 2, 3, 1)
    return torch.dot(left.reshape(-1), right.reshape(-1))


def _along(vector: Tensor, values: Tensor, axis: int) -> Tensor:
    if vector.dim() == 0:
        return vector
    shape = [1] * values.dim()
    shape[axis] = -1
    return vector.view(shape)
