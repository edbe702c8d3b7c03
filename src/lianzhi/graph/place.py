"""Where a model's tensors are, and the model on the CPU."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first tensor; the CPU for a model without any.

    >>> device_of(nn.Linear(2, 2))
    device(type='cpu')
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def moved(values: Any, device: torch.device | str) -> Any:
    """Tensors, in tuples and dicts as well, on a device; other values as they are.

    >>> moved((torch.zeros(1), 2), torch.device("cpu"))
    (tensor([0.]), 2)
    """
    return pytree.tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, values)


def on_cpu(model: nn.Module) -> nn.Module:
    """The model, if all of it is on the CPU; else a copy of it there.

    >>> net = nn.Linear(2, 2)
    >>> on_cpu(net) is net
    True
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    if all(tensor.device.type in ("cpu", "meta") for tensor in tensors):
        return model
    return copy.deepcopy(model).cpu()
