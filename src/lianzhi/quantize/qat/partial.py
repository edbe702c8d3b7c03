"""EfQAT (2411.11038): only the most important output channels train, so that the backward pass costs less.

Importance is the mean magnitude of a channel's weights, and each layer keeps the same share of its channels. The
gradient of the weight is computed for these rows alone. Biases, activation scales and norms all train.

What differs from the paper: the channels are chosen once, at the start, and not again every so many samples, so that
the optimizer keeps state for the chosen rows only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

aten = torch.ops.aten

CONVOLUTIONS: dict[Any, int] = {
    aten.conv1d.default: 1,
    aten.conv2d.default: 2,
    aten.conv3d.default: 3,
}


def important_channels(weight: Tensor, share: float) -> Tensor:
    """The rows with the largest mean magnitude, in order; at least one.

    >>> important_channels(torch.tensor([[1.0, 1.0], [0.0, 9.0], [-3.0, 1.0]]), 0.5)
    tensor([1, 2])
    """
    count = max(1, math.ceil(share * len(weight) - 1e-9))
    chosen: Tensor = weight.detach().abs().flatten(1).mean(1).topk(count).indices.sort().values
    return chosen


def partial_linear(values: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """A matrix product whose weight has gradients in some rows only; the others' are zero.

    >>> weight = torch.ones(2, 2, requires_grad=True)
    >>> partial_linear(torch.ones(3, 2), weight, None, torch.tensor([1])).sum().backward(); weight.grad.tolist()
    [[0.0, 0.0], [3.0, 3.0]]
    """
    cast = in_autocast(values, weight, bias)
    with torch.autocast(values.device.type, enabled=False):
        return _Linear.apply(*cast, rows)  # type: ignore[no-any-return]


def partial_convolution(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """A convolution of one group whose weight has gradients in some rows only."""
    cast = in_autocast(values, weight, bias)
    with torch.autocast(values.device.type, enabled=False):
        return _Convolution.apply(*cast, rows, stride, padding, dilation)  # type: ignore[no-any-return]


def in_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Tensors in the precision that autocast would compute a product in; as they are where it is off."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight, rows)
        return torch.nn.functional.linear(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, rows = ctx.saved_tensors
        gradient = gradients[0]
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_weight = torch.zeros_like(weight)
        of_weight[rows] = flat[:, rows].t() @ values.reshape(-1, values.shape[-1])
        of_bias = flat.sum(0) if ctx.needs_input_grad[2] else None
        return gradient @ weight if ctx.needs_input_grad[0] else None, of_weight, of_bias, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, *where: Any
    ) -> Tensor:
        ctx.save_for_backward(values, weight, rows)
        ctx.where = where
        return aten.convolution(values, weight, bias, *where, False, [0] * len(where[0]), 1)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, rows = ctx.saved_tensors
        gradient, need = gradients[0], ctx.needs_input_grad
        rest = (*ctx.where, False, [0] * len(ctx.where[0]), 1)
        # not asked for along with the values': oneDNN would compute the whole weight's as well
        of_bias = gradient.sum([dim for dim in range(gradient.dim()) if dim != 1]) if need[2] else None
        of_values = None
        if need[0]:
            of_values = aten.convolution_backward(
                gradient, values, weight, None, *rest, [True, False, False]
            )[0]
        of_weight = torch.zeros_like(weight)
        of_weight[rows] = aten.convolution_backward(
            gradient[:, rows], values, weight[rows], None, *rest, [False, True, False]
        )[1]
        return of_values, of_weight, of_bias, None, None, None, None
