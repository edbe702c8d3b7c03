"""Convolutions of small maps as one product of matrices, while a model trains in bf16 on a processor with AMX.

oneDNN's kernels for AMX are made for large maps: over 2x2 and 4x4 the product of the same numbers is several times as quick, over
8x8 the convolution (`benchmarks/training_steps.py`). The last stages of a VGG, in which most of its weights are, work on such maps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LARGEST = 4  # rows and columns of a map that counts as small
CHANNELS = 256  # from which on it pays
_ONE = (1, (1, 1), [1, 1])  # how a call may give it


def works_on_small_maps(model: nn.Module) -> bool:
    """Whether a model has a convolution for which `SmallMaps` is."""
    return any(
        isinstance(module, nn.Conv2d)
        and module.padding == (1, 1)
        and _is_plain(module.weight, module.stride, module.dilation, module.groups)
        for module in model.modules()
    )


class SmallMaps(TorchFunctionMode):
    """Within it, plain 3x3 convolutions of many channels over small maps are computed by `as_product`.

    >>> import torch
    >>> maps, weight = torch.randn(2, 256, 2, 2), torch.randn(8, 256, 3, 3)
    >>> with SmallMaps():
    ...     inside = torch.nn.functional.conv2d(maps, weight, None, 1, 1, 1, 1)
    >>> torch.equal(inside, as_product(maps, weight, None))
    True
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is F.conv2d and not kwargs and len(args) == 7 and _is_small(*args):
            return as_product(*args[:3])
        return function(*args, **(kwargs or {}))


def as_product(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution of stride 1, padded by 1: (n, channels, rows, columns) to (n, outputs, rows, columns)."""
    rows, columns = maps.shape[2:]
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = [
        padded[:, row : row + rows, column : column + columns] for row in range(3) for column in range(3)
    ]
    flat = weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(torch.cat(windows, -1), flat, bias).permute(0, 3, 1, 2)


def _is_small(
    maps: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    """Whether a call of `conv2d` is one that is quicker as a product."""
    return (
        maps.ndim == 4
        and max(maps.shape[2:]) <= LARGEST
        and padding in _ONE
        and _is_plain(weight, stride, dilation, groups)
    )


def _is_plain(weight: Tensor, stride: Any, dilation: Any, groups: int) -> bool:
    """Whether a convolution is 3x3, of many channels, without steps, holes or groups."""
    return (
        weight.shape[2:] == (3, 3)
        and weight.shape[1] >= CHANNELS
        and groups == 1
        and stride in _ONE
        and dilation in _ONE
    )
