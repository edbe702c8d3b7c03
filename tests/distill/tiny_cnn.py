"""Small CNNs of several widths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lianzhi as lz
from lianzhi import train
from lianzhi.tasks import Task
from lianzhi.train.options import TrainOptions


class Block(nn.Module):
    """A convolution with BatchNorm; its ReLU is not a module."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class TinyCNN(nn.Module):
    """Stages of blocks, each but the first of half the size: images (batch, 3, size, size) to logits."""

    def __init__(self, *widths: int, blocks: int = 1, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        channels, stages = 3, []
        for number, width in enumerate(widths):
            rest = [Block(width, width, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(Block(channels, width, 1 + (number > 0)), *rest))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.stages(x).mean((2, 3)))


def images() -> Task:
    """Images of four classes, as large as they have to be."""
    return lz.task("synthetic", samples=96, classes=4, shape=(3, 8, 8))


def trained(task: Task) -> nn.Module:
    """A teacher that has learned them."""
    model = TinyCNN(6, 10, 14, seed=1)
    train.fit(model, task, TrainOptions(epochs=2, batch_size=16), progress=False)
    model.zero_grad(set_to_none=True)
    return model.eval()
