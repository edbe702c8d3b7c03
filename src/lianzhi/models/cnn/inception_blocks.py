"""The blocks of Inception v3 (1512.00567, figures 5 to 7 and 10): parallel branches, joined along channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNormReLU(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, window: Any, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, window, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class BlockA(nn.Module):
    """1x1, 5x5, double 3x3, and pooling with a 1x1 projection of `pool_features` channels."""

    def __init__(self, channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(channels, 64, 1)
        self.branch5x5_1 = ConvNormReLU(channels, 48, 1)
        self.branch5x5_2 = ConvNormReLU(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNormReLU(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, padding=1)
        self.branch_pool = ConvNormReLU(channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(smooth(x))], 1)


class ReduceA(nn.Module):
    """Half the height and width: 3x3, double 3x3, and max pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormReLU(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNormReLU(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNormReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormReLU(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], 1)


class BlockB(nn.Module):
    """1x1, 7x7 and double 7x7, each factored into 1x7 and 7x1, and pooling."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        row: dict[str, Any] = {"window": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"window": (7, 1), "padding": (3, 0)}
        self.branch1x1 = ConvNormReLU(channels, 192, 1)
        self.branch7x7_1 = ConvNormReLU(channels, inner, 1)
        self.branch7x7_2 = ConvNormReLU(inner, inner, **row)
        self.branch7x7_3 = ConvNormReLU(inner, 192, **column)
        self.branch7x7dbl_1 = ConvNormReLU(channels, inner, 1)
        self.branch7x7dbl_2 = ConvNormReLU(inner, inner, **column)
        self.branch7x7dbl_3 = ConvNormReLU(inner, inner, **row)
        self.branch7x7dbl_4 = ConvNormReLU(inner, inner, **column)
        self.branch7x7dbl_5 = ConvNormReLU(inner, 192, **row)
        self.branch_pool = ConvNormReLU(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(smooth(x))], 1)


class ReduceB(nn.Module):
    """Half the height and width: 3x3, factored 7x7 with 3x3, and max pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormReLU(channels, 192, 1)
        self.branch3x3_2 = ConvNormReLU(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNormReLU(channels, 192, 1)
        self.branch7x7x3_2 = ConvNormReLU(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNormReLU(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNormReLU(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        small = self.branch3x3_2(self.branch3x3_1(x))
        large = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([small, self.branch7x7x3_4(large), functional.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """1x1, 3x3 and double 3x3 that end in a row and a column side by side, and pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormReLU(channels, 320, 1)
        self.branch3x3_1 = ConvNormReLU(channels, 384, 1)
        self.branch3x3_2a = ConvNormReLU(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNormReLU(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNormReLU(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNormReLU(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNormReLU(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNormReLU(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvNormReLU(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(smooth(x)),
        ]
        return torch.cat(parts, 1)


class Auxiliary(nn.Module):
    """The head that helps training: pooling, 1x1, what is left as one window, linear."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNormReLU(channels, 128, 1)
        self.conv1 = ConvNormReLU(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool2d(x, 5, stride=3)
        x = functional.adaptive_avg_pool2d(self.conv1(self.conv0(x)), 1)
        return self.fc(x.flatten(1))


def smooth(x: Tensor) -> Tensor:
    """The mean over 3x3 windows, the zeros outside counted, of the same size as `x`."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1)
