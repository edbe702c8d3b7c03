"""A small, wide ResNet for 28x28 grey images (Fashion-MNIST), made to be trained and compressed on a CPU.

Basic blocks with projections (1512.03385), 64, 128 and 256 channels wide, so that integer kernels have
enough to do per pixel; the stem has stride 2, which quarters the work of everything after it. With two blocks a
stage it has 13 layers of 3x3 convolutions.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.cnn.initialize import initialize_
from lianzhi.models.cnn.resnet import BasicBlock, stage
from lianzhi.models.options import Depth, ModelConfig, Width


class FashionResNetConfig(ModelConfig):
    """Options of `fashion_resnet`: `widths` and `blocks` of its stages, and the stem's stride.

    >>> FashionResNetConfig(widths=(32, 64)).blocks
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: FashionResNetConfig: widths has 2 stages and blocks 3; give one number a stage in both
    """

    in_channels: Width = 1
    image_size: int = Field(default=28, ge=1, le=1 << 13)
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (64, 128, 256)
    blocks: Annotated[tuple[Depth, ...], Field(min_length=1, max_length=8)] = (2, 2, 2)
    stem_stride: int = Field(default=2, ge=1, le=4)

    @model_validator(mode="after")
    def _one_a_stage(self) -> FashionResNetConfig:
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"widths has {len(self.widths)} stages and blocks {len(self.blocks)}; "
                f"give one number a stage in both"
            )
        return self


class FashionResNet(nn.Module):
    """Stem, stages of basic blocks, global pooling: images (batch, channels, height, width) to logits."""

    def __init__(self, config: FashionResNetConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.conv1 = nn.Conv2d(config.in_channels, width, 3, stride=config.stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        for index, (out_width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            stages.append(stage(BasicBlock, width, out_width, blocks, stride=1 if index == 0 else 2))
            width = out_width
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(width, config.num_classes)
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(functional.relu(self.bn1(self.conv1(x))))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.flatten(1))


@registry.register(
    "fashion_resnet",
    "ResNet with 13 layers of 64, 128 and 256 channels for 28x28 grey images, 2.8M parameters",
    paper="https://arxiv.org/abs/1512.03385",
    config=FashionResNetConfig,
)
def fashion_resnet(config: FashionResNetConfig) -> FashionResNet:
    """Make the demo's model.

    >>> sum(weight.numel() for weight in fashion_resnet(FashionResNetConfig()).parameters())
    2776522
    """
    return FashionResNet(config)
