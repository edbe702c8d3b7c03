"""Re-estimate BatchNorm statistics: after pruning, each layer sees other inputs than it was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lianzhi.graph import capture, split_inputs
from lianzhi.graph.rules import aten


def reestimate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Set running mean and variance to their averages over `batches` (a simple mean, all alike).

    Works on modules and on captured graphs; the training mode is left as it was.
    """
    totals: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    count = 0
    training = model.training
    graph = None
    for inputs in batches:
        args, kwargs = split_inputs(inputs)
        if graph is None:
            graph = capture(model, inputs)
            norms = [node for node in graph.nodes if node.target is aten.batch_norm.default]
            names = [str(arg.target) for node in norms for arg in node.args[3:5]]
            buffers = dict(graph.module.named_buffers(remove_duplicate=False))
            for node in norms:
                node.update_arg(6, 1.0)
            graph.module.recompile()
            _train_only_norms(graph.module)
        with torch.no_grad():
            graph.module(*args, **kwargs)
        count += 1
        for name in names:
            value = buffers[name].clone()
            totals[name] = value if name not in totals else totals[name] + value  # type: ignore[assignment, operator]
    if graph is None:
        return
    with torch.no_grad():
        for name, total in totals.items():
            buffers[name].copy_(total / count)  # type: ignore[operator]
    model.train(training)


def _train_only_norms(module: Any) -> None:
    """BatchNorm in training mode, dropout off."""
    for node in module.graph.nodes:
        if node.target is aten.batch_norm.default:
            node.update_arg(5, True)
    module.recompile()
