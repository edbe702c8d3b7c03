"""A layer as a matrix product, and the second moments of what it reads.

A linear layer is ``y = W x``. A convolution is the same with the patches under its kernel as columns (im2col),
once a group: weights ``(groups, out, features)``, columns ``(groups, features, positions)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from lianzhi.quantize.placement.ops import LINEAR

aten = torch.ops.aten
_FLAT = {aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding}


def obstacle(node: fx.Node) -> str:
    """Why a layer cannot be seen as a product of matrices, or ""."""
    if node.target in LINEAR or node.target in _FLAT:
        return ""
    return f"{str(node.target).split('.')[1]} is not offered as a product of patches"


def groups_of(node: fx.Node) -> int:
    """How many independent products a layer is."""
    if node.target in LINEAR:
        return 1
    groups: int = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)  # type: ignore[assignment]
    return groups


def as_matrix(weight: Tensor, groups: int) -> Tensor:
    """A weight as ``(groups, out, features)``.

    >>> as_matrix(torch.zeros(8, 2, 3, 3), 4).shape
    torch.Size([4, 2, 18])
    """
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def columns(node: fx.Node, values: Tensor, weight: Tensor) -> Tensor:
    """What a layer reads, as ``(groups, features, positions)``."""
    if node.target in LINEAR:
        return values.reshape(-1, values.shape[-1]).T[None]
    kernel = list(weight.shape[2:])
    stride, padding, dilation = (_pair(node, index, len(kernel)) for index in (3, 4, 5))
    if values.dim() == 3:
        values, kernel = values.unsqueeze(2), [1, *kernel]
        stride, dilation = [1, *stride], [1, *dilation]
        padding = padding if isinstance(padding, str) else [0, *padding]
    values = F.pad(values, _sides(padding, kernel, dilation))
    patches = F.unfold(values, kernel, dilation=dilation, stride=stride)
    groups = groups_of(node)
    split = patches.reshape(len(patches), groups, -1, patches.shape[-1])
    return split.permute(1, 2, 0, 3).reshape(groups, split.shape[2], -1)


def pads(node: fx.Node) -> bool:
    """Whether a layer puts zeros around what it reads."""
    if node.target in LINEAR:
        return False
    padding = _pair(node, 4, 1)
    return padding == "same" or (padding != "valid" and any(padding))


def second_moment(left: Tensor, right: Tensor) -> Tensor:
    """The sum over positions of ``left right^T``, in float64 ``(groups, features, features)``."""
    return (left @ right.transpose(1, 2)).double()


def _pair(node: fx.Node, index: int, count: int) -> Any:
    """A convolution's stride, padding or dilation, one number a dimension; padding may be a word."""
    name = {3: "stride", 4: "padding", 5: "dilation"}[index]
    default: Any = 0 if name == "padding" else 1
    value = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
    if isinstance(value, str):
        return value
    value = list(value) if isinstance(value, (list, tuple)) else [value]
    return value * count if len(value) == 1 else value


def _sides(padding: Any, kernel: list[int], dilation: list[int]) -> list[int]:
    """Zeros to add before and after each dimension, the last one first."""
    if padding == "valid":
        padding = [0] * len(kernel)
    sides = []
    for index in reversed(range(len(kernel))):
        if padding == "same":
            total = dilation[index] * (kernel[index] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [padding[index]] * 2
    return sides
