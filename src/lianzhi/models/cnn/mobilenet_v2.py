"""MobileNetV2: Sandler et al. 2018 (1801.04381). Parameter names are torchvision's, so that its files load."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import ModelConfig, Share

# expansion, output channels, blocks, stride of the first block
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2Config(ModelConfig):
    """Options of `mobilenet_v2`; `width` multiplies all channel counts, which become multiples of eight."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=224, ge=32, le=1 << 13)
    width: float = Field(default=1.0, gt=0, le=8)
    dropout: Share = 0.2


def rounded(channels: float) -> int:
    """The nearest multiple of eight, at least eight and at most a tenth below.

    >>> rounded(32 * 0.75), rounded(16 * 0.35), rounded(24 * 0.35)
    (24, 8, 8)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _conv(
    in_channels: int, out_channels: int, window: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(
        in_channels, out_channels, window, stride=stride, padding=window // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class Inverted(nn.Module):
    """Expand by a 1x1 convolution, filter each channel on its own, project without a nonlinearity."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        expand = [_conv(in_channels, inner, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Seventeen inverted residual blocks: images (batch, channels, height, width) to logits."""

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__()
        channels = rounded(32 * config.width)
        layers: list[nn.Module] = [_conv(config.in_channels, channels, 3, stride=2)]
        for expansion, base, blocks, stride in _STAGES:
            out_channels = rounded(base * config.width)
            for index in range(blocks):
                layers.append(Inverted(channels, out_channels, stride if index == 0 else 1, expansion))
                channels = out_channels
        last = rounded(1280 * max(1.0, config.width))
        self.features = nn.Sequential(*layers, _conv(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(last, config.num_classes))
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(x.flatten(1))


@registry.register(
    "mobilenet_v2",
    "MobileNetV2, depthwise convolutions in inverted residuals, 3.5M parameters, 224x224",
    paper="https://arxiv.org/abs/1801.04381",
    config=MobileNetV2Config,
)
def mobilenet_v2(config: MobileNetV2Config) -> MobileNetV2:
    """Make MobileNetV2.

    >>> sum(weight.numel() for weight in mobilenet_v2(MobileNetV2Config()).parameters())
    3504872
    """
    return MobileNetV2(config)
