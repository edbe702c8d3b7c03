"""Slice tensors, and the optimizer's state with them."""

from __future__ import annotations

from collections.abc import Mapping
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
    for parameter, state in states.items():
        if state:
            optimizer.state[parameter] = state
    replace_parameters(optimizer, {old: get_tensor(model, names[id(old)]) for old in states})


def replace_parameters(optimizer: torch.optim.Optimizer, new: Mapping[nn.Parameter, Tensor | None]) -> None:
    """Give an optimizer other parameters, with the state of the old ones; it forgets those that become None.

    >>> old, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.SGD([old], lr=0.1)
    >>> replace_parameters(optimizer, {old: other})
    >>> optimizer.param_groups[0]["params"][0] is other
    True
    """
    for group in optimizer.param_groups:
        states = [optimizer.state.pop(parameter, {}) for parameter in group["params"]]
        pairs = [(new.get(old, old), state) for old, state in zip(group["params"], states, strict=True)]
        group["params"] = [parameter for parameter, _ in pairs if parameter is not None]
        optimizer.state.update(
            {parameter: state for parameter, state in pairs if parameter is not None and state}
        )


def _sliced_state(name: str, key: str, value: Any, parameter: Tensor, axes: dict[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0 or not axes:
        return value
    if value.shape != parameter.shape:
        raise GraphError(
            f"optimizer state '{key}' of '{name}' has shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: "
            "it cannot be sliced; make a new optimizer for the pruned model"
        )
    return sliced(value, axes)
