"""Small modules for OneFlow source, one an operation or a use of it: what a module is made of, and its inputs.

Both the tests without OneFlow and those with it go through them. `CASES` is name → function that returns (module, inputs).
"""

from __future__ import annotations

import oneflow_function_cases
import oneflow_layer_cases
import torch
from oneflow_case import CASES, Applied, filled, images, rows
from torch import Tensor, nn

__all__ = [
    "CASES",
    "HOSTILE",
    "Applied",
    "filled",
    "images",
    "oneflow_function_cases",
    "oneflow_layer_cases",
    "rows",
]


class Held(nn.Module):
    """Tensors that are no parameters: buffers saved or not, bare tensors, long and short; a tie; one that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.bare = torch.randn(200, generator=generator)
        self.register_buffer("unsaved", torch.randn(200, generator=generator), persistent=False)
        self.register_buffer("order", torch.arange(200).reshape(1, 200), persistent=False)
        self.register_buffer("flags", torch.rand(200, generator=generator) > 0.5)
        self.register_buffer("unread", torch.tensor(3))
        self.weight = nn.Parameter(torch.randn(200, generator=generator))
        self.tied = self.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {
            "sum": x * self.bare + self.unsaved + self.order + self.weight,
            "product": self.tied * self.flags * x,
            "order": self.order,
            "flags": self.flags,
        }


CASES["held"] = lambda: (Held().eval(), (torch.randn(3, 200, generator=torch.Generator().manual_seed(0)),))
HOSTILE = (
    *(
        "forward_",
        "0",
        "12",
        "a-b",
        "x; import os",
        "to_global",
        "hold",
        "flow",
        "F",
        "block",
        "数",
        "__x",
        "self",
    ),
    *("@FORWARD@", "a b", "print", "it's", "{0}"),
)


class Hostile(nn.Module):
    """Layers and arguments of names that mean something else in the source, or end a string in it."""

    def __init__(self) -> None:
        super().__init__()
        for name in HOSTILE:
            self._modules[name] = nn.Linear(5, 5)

    def forward(self, flow: Tensor, attention: Tensor) -> Tensor:
        x = flow - attention
        for module in self._modules.values():
            x = module(x)
        return x


CASES["hostile names"] = lambda: (filled(Hostile()), (rows()[:, 0], rows()[:, 1]))
