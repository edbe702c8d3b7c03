"""Run a plain module with other tensors in place of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def run_with(model: nn.Module, tensors: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
    """The model's output with these parameters and buffers; afterwards it has its own again.

    >>> import torch
    >>> layer = nn.Linear(1, 1)
    >>> run_with(layer, {"weight": torch.full((1, 1), 2.0), "bias": torch.zeros(1)}, (torch.ones(1, 1),), {})
    tensor([[2.]])

    Unlike `torch.func.functional_call`, recurrent layers see them too: these keep a list of their weights.
    """
    before = []
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        store: dict[str, Any] = owner._parameters if leaf in owner._parameters else owner._buffers
        before.append((store, leaf, store[leaf]))
        store[leaf] = value
    refresh_recurrent(model)
    try:
        return model(*args, **kwargs)
    finally:
        for store, leaf, value in reversed(before):  # one layer may have several names
            store[leaf] = value
        refresh_recurrent(model)


def refresh_recurrent(model: nn.Module) -> None:
    """Let recurrent layers list the weights that they now have."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
