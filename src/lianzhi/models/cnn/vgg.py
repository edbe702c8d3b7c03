"""VGG-16 with BatchNorm: Simonyan and Zisserman 2014 (1409.1556), Ioffe and Szegedy 2015 (1502.03167).

`vgg16_bn` has torchvision's parameter names and, at 224x224, its shapes, so that its files load; the classifier's
width follows from `image_size`. `vgg16_bn_cifar` is the form for 32x32 images that Network Slimming and others
compress: the same convolutions, and one linear layer.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import Hidden, ModelConfig, Share

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGGConfig(ModelConfig):
    """Options of `vgg16_bn`: `hidden` holds the widths of the classifier's hidden layers, and may be empty."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=224, ge=32, le=1024)
    hidden: Hidden = (4096, 4096)
    dropout: Share = 0.5


class VGGCifarConfig(VGGConfig):
    """Options of `vgg16_bn_cifar`."""

    num_classes: int = Field(default=10, ge=1, le=1 << 20)
    image_size: int = Field(default=32, ge=32, le=1024)
    hidden: Hidden = ()


class VGG(nn.Module):
    """Thirteen convolutions and a classifier: images (batch, channels, height, width) to logits."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = config.in_channels
        for widths in _STAGES:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        size = channels * (config.image_size // 2 ** len(_STAGES)) ** 2
        head: list[nn.Module] = []
        for width in config.hidden:
            head += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(config.dropout)]
            size = width
        self.classifier = nn.Sequential(*head, nn.Linear(size, config.num_classes))
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


_PAPER = "https://arxiv.org/abs/1409.1556"


@registry.register(
    "vgg16_bn", "VGG-16 with BatchNorm, 138M parameters, 224x224", paper=_PAPER, config=VGGConfig
)
def vgg16_bn(config: VGGConfig) -> VGG:
    """Make VGG-16 with BatchNorm for any image size of 32 or more.

    >>> vgg16_bn(VGGConfig(image_size=64, hidden=(32,), num_classes=5)).classifier[0]
    Linear(in_features=2048, out_features=32, bias=True)
    """
    return VGG(config)


@registry.register(
    "vgg16_bn_cifar",
    "VGG-16 with BatchNorm and one linear layer, 14.7M parameters, 32x32",
    paper=_PAPER,
    config=VGGCifarConfig,
)
def vgg16_bn_cifar(config: VGGCifarConfig) -> VGG:
    """Make VGG-16 with BatchNorm for small images."""
    return VGG(config)
