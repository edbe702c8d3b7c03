"""Optimizers by name, with or without weight decay on biases and norm parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lianzhi.errors import TrainingError
from lianzhi.train.lamb import Lamb
from lianzhi.train.options import TrainOptions

SMALL = 1e-30  # of averages of gradients and of their squares
EVERY = 100  # updates between two looks: 0.9 to the power of so many is 3e-5


def groups(model: nn.Module, weight_decay: float, *, decay_all: bool = True) -> list[dict[str, Any]]:
    """The trainable parameters as one group, or as two: those of one dimension (biases, norms) undecayed.

    >>> [len(group["params"]) for group in groups(nn.Linear(2, 2), 0.1, decay_all=False)]
    [1, 1]
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise TrainingError("the model has no parameter that requires a gradient; nothing can be trained")
    if decay_all or not weight_decay:
        return [{"params": parameters, "weight_decay": weight_decay}]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    both = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in both if group["params"]]


def optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Make the optimizer that the options name.

    >>> type(optimizer(nn.Linear(2, 2), TrainOptions(optimizer="adamw"))).__name__
    'AdamW'
    """
    parameters = groups(model, options.weight_decay, decay_all=options.decay_all)
    if options.optimizer == "sgd":
        nesterov = options.nesterov and options.momentum > 0
        return torch.optim.SGD(
            parameters, lr=options.lr, momentum=options.momentum, nesterov=nesterov, fused=True
        )
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=options.lr, betas=options.betas, fused=True)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=options.lr, betas=options.betas, fused=True)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=options.lr, alpha=options.rms_decay, momentum=options.momentum, foreach=True
        )
    if options.optimizer == "adadelta":  # Zeiler 2012 (1212.5701); its own learning rate is 1
        return torch.optim.Adadelta(parameters, lr=options.lr, rho=options.rho, foreach=True)
    return Lamb(parameters, lr=options.lr, betas=options.betas)


@torch.no_grad()
def forget_small(optimizer: torch.optim.Optimizer) -> None:
    """Zero what is left of averages whose gradients are gone, of removed weights or of words that do not come.

    Without gradients an average falls by a tenth at each update, until it is a denormal number that rounds to itself, and processors
    are many times as slow with those (`benchmarks/training_steps.py`). Numbers below 1e-30 are far below what moves a weight.
    """
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
                value.masked_fill_(value.abs() < SMALL, 0.0)


def require_same_layout(model: nn.Module) -> None:
    """Fused kernels read a gradient in memory order: it must be laid out as its parameter is.

    Autograd keeps to that by itself; a gradient set by hand might not, and would be applied wrongly.
    """
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None or gradient.stride() == parameter.stride():
            continue
        wide = [axis for axis, size in enumerate(parameter.shape) if size > 1]
        if any(gradient.stride(axis) != parameter.stride(axis) for axis in wide):
            raise TrainingError(
                f"the gradient of '{name}' has strides {gradient.stride()}, its parameter "
                f"{parameter.stride()}; do not assign .grad by hand, or copy into it"
            )
