"""Re-estimate BatchNorm statistics: after pruning, each layer sees other inputs than it was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import DataError
from lianzhi.graph import TracedModule, get_tensor, split_inputs

_NORM = torch.ops.aten.batch_norm.default
_TRAINING, _MOMENTUM = 5, 6


def reestimate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Set running mean and variance to their plain averages over `batches` (as `example_inputs`, each).

    >>> net = nn.Sequential(nn.BatchNorm1d(1))
    >>> reestimate(net, [torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [3.0]])])
    >>> net[0].running_mean, net[0].running_var
    (tensor([2.]), tensor([1.]))

    Works on modules and on captured graphs; training modes are left as they were, dropout is off.
    Raises `DataError` if there is no batch; whatever fails, the statistics are then as they were.
    """
    if isinstance(batches, (Tensor, dict, str)):
        raise DataError(
            f"reestimate: batches is a {type(batches).__name__}; give an iterable of batches, such as [batch]"
        )
    statistics = _statistics(model)
    if not statistics:
        return
    result = [tensor.clone() for tensor in statistics]
    totals: list[Tensor] = [torch.zeros_like(tensor, dtype=torch.float64) for tensor in statistics]
    count = 0
    try:
        with _only_norms_training(model), torch.no_grad():
            for inputs in batches:
                args, kwargs = split_inputs(inputs)
                try:
                    model(*args, **kwargs)
                except TypeError as error:
                    raise DataError(
                        f"reestimate: batch {count} does not fit the model ({error}); a batch is what the model takes, without "
                        "labels: [inputs for inputs, labels in loader]"
                    ) from error
                count += 1
                for total, tensor in zip(totals, statistics, strict=True):
                    total.add_(tensor)
        if not count:
            raise DataError(
                "reestimate: no batches were given; the BatchNorm statistics are left as they were"
            )
        result = [total / count for total in totals]
    finally:
        for tensor, value in zip(statistics, result, strict=True):
            tensor.copy_(value)


def _statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances, each once."""
    found: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.running_var):
                if tensor is not None:
                    found[id(tensor)] = tensor
        if isinstance(module, TracedModule):
            for node in module.graph.nodes:
                for read in node.args[3:5] if node.target is _NORM else ():
                    if read is not None:
                        tensor = get_tensor(module, str(read.target))  # type: ignore[union-attr]
                        found[id(tensor)] = tensor
    return list(found.values())


@contextlib.contextmanager
def _only_norms_training(model: nn.Module) -> Iterator[None]:
    """BatchNorm takes each batch's statistics whole; everything else evaluates. Restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    momenta: list[tuple[Any, Any]] = []
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            momenta.append((module, module.momentum))
            module.training, module.momentum = True, 1.0
        if isinstance(module, TracedModule):
            for node in module.graph.nodes:
                if node.target is _NORM and node.args[3] is not None:
                    momenta.append((node, node.args[_MOMENTUM]))
                    node.update_arg(_TRAINING, True)
                    node.update_arg(_MOMENTUM, 1.0)
            module.recompile()
    try:
        yield
    finally:
        for owner, momentum in momenta:
            if isinstance(owner, nn.Module):
                owner.momentum = momentum
            else:
                owner.update_arg(_MOMENTUM, momentum)
                owner.update_arg(_TRAINING, False)
        for module, mode in modes:
            if isinstance(module, TracedModule):
                module.recompile()
                module.train(mode)
            module.training = mode
