"""What a case of OneFlow source is made of: a small module and its inputs. The cases are in `oneflow_cases.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {}


class Applied(nn.Module):
    """Calls a function with itself and its inputs; the function finds the layers in it."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def case(
    name: str, function: Callable[..., Any], *inputs: Callable[[], Tensor], **layers: Callable[[], nn.Module]
) -> None:
    """Put a case under its name; layers and inputs are made when it is run."""

    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        module = Applied(function, **{key: layer() for key, layer in layers.items()})
        return filled(module), tuple(one() for one in inputs)

    CASES[name] = make


def layer(name: str, make: Callable[[], nn.Module], *inputs: Callable[[], Tensor]) -> None:
    """A case of one layer."""
    case(name, lambda self, x: self.layer(x), *(inputs or (images,)), layer=make)


def filled(module: nn.Module) -> nn.Module:
    """Random statistics, biases and scales in place of zeros and ones; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def images() -> Tensor:
    return torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def rows() -> Tensor:
    return torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(2))


def volumes() -> Tensor:
    return torch.randn(2, 3, 5, 5, 5, generator=torch.Generator().manual_seed(3))


def flat() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(4))


def heads() -> Tensor:
    return torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(5))


def places() -> Tensor:
    return torch.randint(0, 5, (3, 5), generator=torch.Generator().manual_seed(6))


def mask() -> Tensor:
    return torch.rand(3, 5, generator=torch.Generator().manual_seed(7)) > 0.4


def mask_of_pairs() -> Tensor:
    made = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(8)) > 0.5
    made[0, 0, 2] = False  # a row that is hidden whole
    return made


def several(name: str, layers: list[Callable[[], nn.Module]], *inputs: Callable[[], Tensor]) -> None:
    """A case of layers of one kind, each on the same input."""
    case(
        name,
        lambda self, x: tuple(one(x) for one in self.layers),
        *(inputs or (images,)),
        layers=lambda: _list(layers),
    )


def _list(layers: list[Callable[[], nn.Module]]) -> nn.ModuleList:
    return nn.ModuleList(one() for one in layers)
