"""Scales of a weight's rows, an output channel each, and rounding with them."""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.quantize.affine import MIN_SCALE, qparams
from lianzhi.quantize.scheme import Scheme

FEW_BITS = 4  # from here on clipping a weight costs less than coarse steps
SHARES = [1 - 0.02 * index for index in range(31)]


def row_scale(rows: Tensor, scheme: Scheme) -> Tensor:
    """One scale a row: the largest magnitude over the largest integer; with 4 bits the one of least squared error.

    >>> row_scale(torch.tensor([[1.0, -12.7], [0.0, 0.0]]), Scheme(8))
    tensor([1.0000e-01, 2.3283e-10])
    """
    largest = rows.abs().amax(1)
    scale, _ = qparams(-largest, largest, scheme)
    return least_squares_scale(rows, scale, scheme) if scheme.bits <= FEW_BITS else scale


def rounded_weight(weight: Tensor, scheme: Scheme) -> Tensor:
    """A weight whose values are all rounded to the nearest on the grid that it would get.

    >>> rounded_weight(torch.tensor([[1.0, 0.04, -12.7]]), Scheme(8, per_channel=True))
    tensor([[  1.0000,   0.0000, -12.7000]])
    """
    rows = grouped(weight, scheme) if can_group(weight, scheme) else weight.flatten(1)
    scale = row_scale(rows, scheme)[:, None]
    return ((rows / scale).round().clamp(scheme.qmin, scheme.qmax) * scale).reshape(weight.shape)


def can_group(weight: Tensor, scheme: Scheme) -> bool:
    """Whether the inputs of a linear layer's weight ``(out, in)`` can be cut into the groups of a scheme."""
    return bool(scheme.group_size) and weight.dim() == 2 and weight.shape[1] % scheme.group_size == 0


def grouped(weight: Tensor, scheme: Scheme) -> Tensor:
    """The groups of a weight as rows, those of the first output channel first.

    >>> grouped(torch.zeros(3, 128), Scheme(4, group_size=32)).shape
    torch.Size([12, 32])
    """
    return weight.reshape(-1, scheme.group_size)


def least_squares_scale(rows: Tensor, scale: Tensor, scheme: Scheme) -> Tensor:
    """Of each row's scale and shares of it, the one with the least squared error of rounding.

    >>> rows = torch.tensor([[1.0] * 20 + [1.2]])
    >>> least_squares_scale(rows, torch.tensor([1.2]), Scheme(2))  # 1.2 would be exact for one value of 21
    tensor([1.0080])
    """
    best = torch.full_like(scale, float("inf"), dtype=torch.float64)
    chosen = scale
    for share in SHARES:
        tried = (scale * share).clamp(min=MIN_SCALE)
        rounded = (rows / tried[:, None]).round().clamp(scheme.qmin, scheme.qmax) * tried[:, None]
        error = (rounded - rows).double().square().sum(1)
        chosen = torch.where(error < best, tried, chosen)
        best = torch.minimum(best, error)
    return chosen
