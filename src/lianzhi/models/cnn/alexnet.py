"""AlexNet: Krizhevsky et al. 2012, in the one-tower form of Krizhevsky 2014 (1404.5997).

`alexnet` has torchvision's parameter names and, at 224x224, its shapes, so that its files load. Adaptive pooling
does nothing at that size and is left out: the classifier's width follows from `image_size`. `alexnet_cifar` is the
same with 3x3 windows for 32x32 images.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from lianzhi.models.catalog import registry
from lianzhi.models.options import ModelConfig, Share, Width


class AlexNetConfig(ModelConfig):
    """Options of `alexnet`."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=224, ge=63, le=1024)
    hidden: tuple[Width, Width] = (4096, 4096)
    dropout: Share = 0.5


class AlexNetCifarConfig(ModelConfig):
    """Options of `alexnet_cifar`."""

    image_size: int = Field(default=32, ge=16, le=512)
    hidden: tuple[Width, Width] = (4096, 4096)
    dropout: Share = 0.5


class AlexNet(nn.Module):
    """Five convolutions and three linear layers: images (batch, channels, height, width) to logits."""

    def __init__(
        self, stem: nn.Conv2d, window: int, side: int, config: AlexNetConfig | AlexNetCifarConfig
    ) -> None:
        super().__init__()
        second = 5 if window == 3 else 3
        first, last = config.hidden
        self.features = nn.Sequential(
            stem,
            nn.ReLU(),
            nn.MaxPool2d(window, stride=2),
            nn.Conv2d(64, 192, second, padding=second // 2),
            nn.ReLU(),
            nn.MaxPool2d(window, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(window, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(256 * side**2, first),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(first, last),
            nn.ReLU(),
            nn.Linear(last, config.num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


_PAPER = "https://arxiv.org/abs/1404.5997"


@registry.register("alexnet", "AlexNet, 61.1M parameters, 224x224", paper=_PAPER, config=AlexNetConfig)
def alexnet(config: AlexNetConfig) -> AlexNet:
    """Make AlexNet for ImageNet: an 11x11 stem with stride 4, overlapping pooling."""
    side = (config.image_size + 4 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    stem = nn.Conv2d(config.in_channels, 64, 11, stride=4, padding=2)
    return AlexNet(stem, 3, side, config)


@registry.register(
    "alexnet_cifar",
    "AlexNet with 3x3 windows, 23.3M parameters, 32x32",
    paper=_PAPER,
    config=AlexNetCifarConfig,
)
def alexnet_cifar(config: AlexNetCifarConfig) -> AlexNet:
    """Make AlexNet for small images: a 3x3 stem with stride 2, 2x2 pooling.

    >>> model = alexnet_cifar(AlexNetCifarConfig(hidden=(256, 256)))
    >>> model.classifier[1]
    Linear(in_features=1024, out_features=256, bias=True)
    """
    stem = nn.Conv2d(config.in_channels, 64, 3, stride=2, padding=1)
    return AlexNet(stem, 2, ((config.image_size + 1) // 2) // 8, config)
