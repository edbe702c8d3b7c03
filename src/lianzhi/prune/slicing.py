"""Slice tensors, and the optimizer's state with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError
from lianzhi.graph import get_tensor

Keep = dict[str, dict[int, Tensor]]  # tensor → axis → kept indices


def sliced(tensor: Tensor, axes: dict[int, Tensor]) -> Tensor:
    """The surviving part of a tensor, as a tensor of its own.

    >>> sliced(torch.arange(6).view(2, 3), {1: torch.tensor([0, 2])})
    tensor([[0, 2],
            [3, 5]])
    """
    for axis, indices in axes.items():
        tensor = tensor.index_select(axis, indices.to(tensor.device))
    return tensor.contiguous()


States = dict[nn.Parameter, dict[str, Any]]


def sliced_states(optimizer: torch.optim.Optimizer, names: dict[int, str], keep: Keep) -> States:
    """The state of each parameter as surgery leaves it; nothing is changed, and what cannot be sliced is refused.

    `names` gives the name of each parameter of the model before surgery, by identity.
    """
    states: States = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is not None:
                states[parameter] = {
                    key: _sliced_state(name, key, value, parameter, keep.get(name, {}))
                    for key, value in optimizer.state.get(parameter, {}).items()
                }
    return states


def point_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[int, str], model: nn.Module, states: States
) -> None:
    """Point an optimizer at the parameters of the pruned `model`, and give it the states that `sliced_states` made."""
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            if parameter in states:
                new = get_tensor(model, names[id(parameter)])
                group["params"][index] = new
                optimizer.state.pop(parameter, None)
                if states[parameter]:
                    optimizer.state[new] = states[parameter]


def _sliced_state(name: str, key: str, value: Any, parameter: Tensor, axes: dict[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0 or not axes:
        return value
    if value.shape != parameter.shape:
        raise GraphError(
            f"optimizer state '{key}' of '{name}' has shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: "
            "it cannot be sliced; make a new optimizer for the pruned model"
        )
    return sliced(value, axes)
