"""Perceptrons: linear layers with ReLU between them, for images or plain vectors.

`dnn_2` and `dnn_4` have two and four linear layers, the last of which gives the logits.
"""

from __future__ import annotations

import itertools

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.models.catalog import registry
from lianzhi.models.options import Hidden, ModelConfig, Width


class MLPConfig(ModelConfig):
    """Options of the perceptrons: `hidden` sizes, and the image that is flattened."""

    in_channels: Width = 1
    image_size: int = Field(default=28, ge=1, le=512)
    hidden: Hidden


class DNN2Config(MLPConfig):
    """Options of `dnn_2`."""

    hidden: Hidden = (128,)


class DNN4Config(MLPConfig):
    """Options of `dnn_4`."""

    hidden: Hidden = (512, 256, 128)


class MLP(nn.Module):
    """Linear layers: images or vectors (batch, …) to logits."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        sizes = (config.in_channels * config.image_size**2, *config.hidden, config.num_classes)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for index, layer in enumerate(self.layers):
            x = layer(functional.relu(x) if index else x)
        return x


@registry.register("dnn_2", "Perceptron with two layers, 128 hidden units, 28x28 grey", config=DNN2Config)
def dnn_2(config: DNN2Config) -> MLP:
    """Make the small perceptron.

    >>> [tuple(layer.weight.shape) for layer in dnn_2(DNN2Config(hidden=(32,))).layers]
    [(32, 784), (10, 32)]
    """
    return MLP(config)


@registry.register(
    "dnn_4", "Perceptron with four layers, 512, 256 and 128 hidden units, 28x28 grey", config=DNN4Config
)
def dnn_4(config: DNN4Config) -> MLP:
    """Make the larger perceptron."""
    return MLP(config)
