"""The captured model as a module: an fx graph of ATen ops over the model's own parameters."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten

# op → position of the argument that says "training"
TRAINING_ARGUMENT = {
    aten.batch_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.feature_dropout_.default: 2,
    aten.alpha_dropout.default: 2,
    aten.lstm.input: 6,
    aten.gru.input: 6,
    aten.rnn_tanh.input: 6,
    aten.rnn_relu.input: 6,
}


class TracedModule(fx.GraphModule):
    """An fx graph of ATen ops that trains and evaluates as the model did.

    Parameters and buffers carry the names that they had in the model. `train` and `eval` switch the
    training argument of BatchNorm and dropout ops.
    """

    def __init__(self, root: Any, graph: fx.Graph, class_name: str = "TracedModule") -> None:
        super().__init__(root, graph, class_name)
        self.training = False

    def train(self, mode: bool = True) -> TracedModule:
        """Switch every op that behaves differently in training."""
        if mode != self.training:
            for node in self.graph.nodes:
                position = TRAINING_ARGUMENT.get(node.target) if node.op == "call_function" else None
                if position is not None and len(node.args) > position:
                    node.update_arg(position, mode)
            self.recompile()
        return super().train(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> TracedModule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            copied: TracedModule = super().__deepcopy__(memo)
        copied.__class__.__name__ = type(self).__name__
        adopt(copied, self, memo)
        copied.training = self.training
        for child in copied.children():
            child.train(self.training)
        return copied


def adopt(module: nn.Module, source: nn.Module, memo: dict[int, Any] | None = None) -> None:
    """Give a module the tensors of another under the same names, those that no op reads included.

    They are shared; with `memo` (of `copy.deepcopy`) they are copied. Ties and what is saved stay as they were.
    """
    for name, parameter in source.named_parameters(remove_duplicate=False):
        value = parameter if memo is None else copy.deepcopy(parameter, memo)
        _vacant(module, name).register_parameter(name.rpartition(".")[2], value)
    for name, buffer in source.named_buffers(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        kept = leaf not in source.get_submodule(path)._non_persistent_buffers_set
        value = buffer if memo is None else copy.deepcopy(buffer, memo)
        _vacant(module, name).register_buffer(leaf, value, persistent=kept)


def put_constant(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Hold a constant of a capture under its dotted name; it is no part of the state."""
    _vacant(module, name).register_buffer(name.rpartition(".")[2], value, persistent=False)


def _vacant(module: nn.Module, name: str) -> nn.Module:
    """The submodule that is to hold a dotted name, made where it is missing; the name itself is free."""
    *path, leaf = name.split(".")
    for part in path:
        child = module._modules.get(part)
        if child is None:
            child = nn.Module()
            module.add_module(part, child)
        module = child
    module.__dict__.pop(leaf, None)
    module._parameters.pop(leaf, None)
    module._buffers.pop(leaf, None)
    return module


def replace_tensor(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a new tensor where a parameter or buffer of this name is; a parameter stays one.

    >>> layer = nn.Linear(3, 2)
    >>> replace_tensor(layer, "bias", torch.zeros(5)); layer.bias.shape, type(layer.bias).__name__
    (torch.Size([5]), 'Parameter')
    """
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = getattr(owner, leaf)
    if isinstance(old, nn.Parameter):
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, old.requires_grad)
        owner.register_parameter(leaf, parameter)
    elif leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        setattr(owner, leaf, value)


def get_tensor(module: nn.Module, name: str) -> torch.Tensor:
    """The parameter or buffer of this dotted name."""
    path, _, leaf = name.rpartition(".")
    tensor: torch.Tensor = getattr(module.get_submodule(path), leaf)
    return tensor
