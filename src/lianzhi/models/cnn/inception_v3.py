"""Inception v3: Szegedy et al. 2015 (1512.00567). Parameter names are torchvision's, so that its files load.

Published weights hold the auxiliary head: give ``aux=True`` to load them. In training mode such a model returns
``(logits, auxiliary logits)``; in eval mode, and so when it is exported, the head does not run. Any image size of
75 or more works, 299 being the paper's.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from lianzhi.models.catalog import registry
from lianzhi.models.cnn import inception_blocks as blocks
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.options import ModelConfig, Share


class InceptionV3Config(ModelConfig):
    """Options of `inception_v3`."""

    num_classes: int = Field(default=1000, ge=1, le=1 << 20)
    image_size: int = Field(default=299, ge=75, le=1 << 13)
    aux: bool = False
    dropout: Share = 0.5


class InceptionV3(nn.Module):
    """Stem, eleven inception blocks, global pooling: images (batch, channels, height, width) to logits."""

    def __init__(self, config: InceptionV3Config) -> None:
        super().__init__()
        conv = blocks.ConvNormReLU
        self.Conv2d_1a_3x3 = conv(config.in_channels, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, 3)
        self.Conv2d_2b_3x3 = conv(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = conv(64, 80, 1)
        self.Conv2d_4a_3x3 = conv(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = blocks.BlockA(192, 32)
        self.Mixed_5c = blocks.BlockA(256, 64)
        self.Mixed_5d = blocks.BlockA(288, 64)
        self.Mixed_6a = blocks.ReduceA(288)
        self.Mixed_6b = blocks.BlockB(768, 128)
        self.Mixed_6c = blocks.BlockB(768, 160)
        self.Mixed_6d = blocks.BlockB(768, 160)
        self.Mixed_6e = blocks.BlockB(768, 192)
        self.AuxLogits = blocks.Auxiliary(768, config.num_classes) if config.aux else None
        self.Mixed_7a = blocks.ReduceB(768)
        self.Mixed_7b = blocks.BlockC(1280)
        self.Mixed_7c = blocks.BlockC(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(2048, config.num_classes)
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        auxiliary = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        x = self.fc(self.dropout(self.avgpool(x)).flatten(1))
        return x if auxiliary is None else (x, auxiliary)


@registry.register(
    "inception_v3",
    "Inception v3, 23.8M parameters, 299x299 (27.2M with the auxiliary head: aux=True)",
    paper="https://arxiv.org/abs/1512.00567",
    config=InceptionV3Config,
)
def inception_v3(config: InceptionV3Config) -> InceptionV3:
    """Make Inception v3."""
    return InceptionV3(config)
