"""The captured model as a module: an fx graph of ATen ops over the model's own parameters."""

from __future__ import annotations

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
        copied.training = self.training
        for child in copied.children():
            child.train(self.training)
        return copied


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
