"""ResNets for 32x32 images: He et al. 2015 (1512.03385), section 4.2, with 6n + 2 layers.

Three stages of n basic blocks each, 16, 32 and 64 channels wide; shortcuts without parameters (option A): where
a stage begins, every other pixel is taken and the missing channels are zeros, half before and half after.
Parameter names are those of the published CIFAR weights (``conv1``, ``layer1.0.conv1`` … ``linear``).
"""

from __future__ import annotations

from functools import partial

from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import ModelConfig, Width

DEPTHS = {20: "0.27M", 32: "0.46M", 44: "0.66M", 56: "0.85M", 110: "1.7M"}


class CifarResNetConfig(ModelConfig):
    """Options of the CIFAR ResNets; each stage is at least as wide as the one before it."""

    widths: tuple[Width, Width, Width] = (16, 32, 64)

    @field_validator("widths")
    @classmethod
    def _none_narrower(cls, widths: tuple[int, int, int]) -> tuple[int, int, int]:
        if list(widths) != sorted(widths):
            raise ValueError(
                f"a shortcut adds channels and never removes any; give widths that do not fall, not {widths}"
            )
        return widths


class ZeroPadShortcut(nn.Module):
    """Option A: every other pixel, and channels of zeros before and after those that come in.

    `padding` is what `torch.nn.functional.pad` takes: left, right, top, bottom, before and after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], self.padding)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else ZeroPadShortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """A ResNet of three stages with `blocks` blocks each: images (batch, channels, 32, 32) to logits."""

    def __init__(self, blocks: int, config: CifarResNetConfig) -> None:
        super().__init__()
        first, second, third = config.widths
        self.conv1 = nn.Conv2d(config.in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.linear = nn.Linear(third, config.num_classes)
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.linear(x.flatten(1))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Block(out_channels, out_channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(in_channels, out_channels, stride), *rest)


def build(depth: int, config: CifarResNetConfig) -> CifarResNet:
    """Make the ResNet with `depth` = 6n + 2 layers.

    >>> sum(weight.numel() for weight in build(20, CifarResNetConfig()).parameters())
    269722
    """
    return CifarResNet((depth - 2) // 6, config)


for _depth, _size in DEPTHS.items():
    registry.register(
        f"resnet{_depth}",
        f"ResNet with {_depth} layers for 32x32 images, parameter-free shortcuts, {_size} parameters",
        paper="https://arxiv.org/abs/1512.03385",
        config=CifarResNetConfig,
    )(partial(build, _depth))
