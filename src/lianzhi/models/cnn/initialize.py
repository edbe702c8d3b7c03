"""Initial weights of convolutional networks: He et al. 2015 (1502.01852), by fan-out, as for residual networks."""

from __future__ import annotations

from torch import nn


def initialize_(module: nn.Module) -> None:
    """Draw the weights of all convolutions; BatchNorm and linear layers keep PyTorch's own start."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
