"""ResNets for ImageNet: He et al. 2015 (1512.03385), and ResNeXt: Xie et al. 2016 (1611.05431).

The stride of a bottleneck is in its 3x3 convolution rather than in its first 1x1, as in all weights that are
published today. Parameter names are torchvision's (``layer1.0.downsample.0`` … ``fc``), so that its files load.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import ModelConfig


class ResNetConfig(ModelConfig):
    """Options of the ImageNet ResNets; any image size of 32 or more works."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=224, ge=32, le=1 << 13)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, groups: int = 1, width_per_group: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (in groups for ResNeXt) and 1x1 convolutions, four times as wide at the end."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, groups: int = 1, width_per_group: int = 64
    ) -> None:
        super().__init__()
        inner, out_channels = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + self.downsample(x))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    blocks: int,
    *,
    stride: int,
    groups: int = 1,
    width_per_group: int = 64,
) -> nn.Sequential:
    """Blocks one after the other, of which the first has the stride."""
    first = block(in_channels, width, stride, groups, width_per_group)
    rest = [block(width * block.expansion, width, 1, groups, width_per_group) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """A ResNet of four stages: images (batch, channels, height, width) to logits."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        config: ResNetConfig,
        *,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        make = partial(stage, block, groups=groups, width_per_group=width_per_group)
        grown = block.expansion
        self.conv1 = nn.Conv2d(config.in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = make(64, 64, depths[0], stride=1)
        self.layer2 = make(64 * grown, 128, depths[1], stride=2)
        self.layer3 = make(128 * grown, 256, depths[2], stride=2)
        self.layer4 = make(256 * grown, 512, depths[3], stride=2)
        self.fc = nn.Linear(512 * grown, config.num_classes)
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.flatten(1))


_PAPER = "https://arxiv.org/abs/1512.03385"


@registry.register(
    "resnet18", "ResNet with 18 layers, 11.7M parameters, 224x224", paper=_PAPER, config=ResNetConfig
)
def resnet18(config: ResNetConfig) -> ResNet:
    """Basic blocks, two a stage."""
    return ResNet(BasicBlock, (2, 2, 2, 2), config)


@registry.register(
    "resnet34", "ResNet with 34 layers, 21.8M parameters, 224x224", paper=_PAPER, config=ResNetConfig
)
def resnet34(config: ResNetConfig) -> ResNet:
    """Basic blocks, 3 + 4 + 6 + 3."""
    return ResNet(BasicBlock, (3, 4, 6, 3), config)


@registry.register(
    "resnet50", "ResNet with 50 layers, 25.6M parameters, 224x224", paper=_PAPER, config=ResNetConfig
)
def resnet50(config: ResNetConfig) -> ResNet:
    """Bottlenecks, 3 + 4 + 6 + 3."""
    return ResNet(Bottleneck, (3, 4, 6, 3), config)


@registry.register(
    "resnet101", "ResNet with 101 layers, 44.5M parameters, 224x224", paper=_PAPER, config=ResNetConfig
)
def resnet101(config: ResNetConfig) -> ResNet:
    """Bottlenecks, 3 + 4 + 23 + 3."""
    return ResNet(Bottleneck, (3, 4, 23, 3), config)


@registry.register(
    "resnet152", "ResNet with 152 layers, 60.2M parameters, 224x224", paper=_PAPER, config=ResNetConfig
)
def resnet152(config: ResNetConfig) -> ResNet:
    """Bottlenecks, 3 + 8 + 36 + 3."""
    return ResNet(Bottleneck, (3, 8, 36, 3), config)


@registry.register(
    "resnext50_32x4d",
    "ResNeXt with 50 layers, 32 groups of 4 channels, 25.0M parameters, 224x224",
    paper="https://arxiv.org/abs/1611.05431",
    config=ResNetConfig,
)
def resnext50_32x4d(config: ResNetConfig) -> ResNet:
    """Bottlenecks whose 3x3 convolution has 32 groups."""
    return ResNet(Bottleneck, (3, 4, 6, 3), config, groups=32, width_per_group=4)
