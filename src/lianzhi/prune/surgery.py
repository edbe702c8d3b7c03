"""Surgery: slice the tensors, keep the graph and the module's own attributes in step.

The rewritten graph is the truth. The plain module is returned only if, with its attributes synced, it
computes the same; otherwise the captured graph module is the result.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.graph import Graph, TracedModule, get_tensor, replace_tensor
from lianzhi.graph.groups import Groups
from lianzhi.graph.labels import Slot
from lianzhi.prune import rewrite
from lianzhi.prune.sync import sync_attributes

Keep = dict[str, dict[int, Tensor]]  # tensor → axis → kept indices


@dataclass(frozen=True)
class Operated:
    """The pruned module, and whether it is the ``plain`` module or the captured ``graph``."""

    module: nn.Module
    kind: str
    reason: str = ""


def by_tensor(keep: dict[Slot, Tensor]) -> Keep:
    """Regroup kept indices by tensor."""
    result: Keep = {}
    for slot, indices in keep.items():
        result.setdefault(slot.tensor, {})[slot.axis] = indices
    return result


def sliced(tensor: Tensor, axes: dict[int, Tensor]) -> Tensor:
    """The surviving part of a tensor.

    >>> sliced(torch.arange(6).view(2, 3), {1: torch.tensor([0, 2])})
    tensor([[0, 2],
            [3, 5]])
    """
    for axis, indices in axes.items():
        tensor = tensor.index_select(axis, indices.to(tensor.device))
    return tensor.contiguous()


def operate(
    graph: Graph, groups: Groups, removed: Tensor, *, in_place: bool, optimizer: torch.optim.Optimizer | None
) -> Operated:
    """Remove components (a boolean a component) from the graph's source model, or from a copy of it."""
    source = graph.source
    keep = by_tensor(groups.keep(removed))
    model = source if in_place else _copied(source, keep, groups)
    training = source.training
    names = {id(parameter): name for name, parameter in source.named_parameters()}
    replaced: dict[int, nn.Parameter] = {}
    for name, axes in keep.items():
        before = get_tensor(source, name)
        with torch.no_grad():
            value: Tensor = sliced(before.detach(), axes)
        if isinstance(before, nn.Parameter):
            value = nn.Parameter(value, requires_grad=before.requires_grad)
            replaced[id(before)] = value
        for alias in groups.aliases[name]:
            replace_tensor(model, alias, value)
    if optimizer is not None:
        slice_optimizer(optimizer, names, replaced, model, source, keep)
    graph_copy = rewrite.rewritten(graph, groups, removed)
    traced = TracedModule(_with_constants(model, graph, keep), graph_copy)
    operated = _choose(graph, groups, removed, model, traced)
    operated.module.train(training)
    return operated


def _copied(source: nn.Module, keep: Keep, groups: Groups) -> nn.Module:
    """A deep copy that does not copy what will be replaced anyway."""
    memo: dict[int, Any] = {}
    for name in keep:
        tensor = get_tensor(source, name)
        memo[id(tensor)] = tensor
    return copy.deepcopy(source, memo)


def _with_constants(model: nn.Module, graph: Graph, keep: Keep) -> nn.Module:
    """A root that holds the model's tensors under their names, and the constants of the capture."""
    root = nn.Module()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        _put(root, name, parameter)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        _put(root, name, buffer, persistent=_persistent(model, name))
    for node in graph.nodes:
        if node.op == "get_attr" and not _has(root, str(node.target)):
            value = get_tensor(graph.module, str(node.target))
            if str(node.target) in keep:
                value = sliced(value, keep[str(node.target)])
            _put(root, str(node.target), value, persistent=False)
    return root


def _has(root: nn.Module, name: str) -> bool:
    try:
        get_tensor(root, name)
    except AttributeError:
        return False
    return True


def _persistent(model: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    return leaf not in model.get_submodule(path)._non_persistent_buffers_set


def _put(root: nn.Module, name: str, value: Tensor, *, persistent: bool = True) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value, persistent=persistent)


def _choose(graph: Graph, groups: Groups, removed: Tensor, model: nn.Module, traced: TracedModule) -> Operated:
    if isinstance(model, TracedModule):
        return Operated(_complete(traced, model), "graph", "the model was a captured graph already")
    try:
        sync_attributes(model, rewrite.changes(graph, groups, removed), groups)
        model.eval()
        traced.eval()
        with torch.no_grad():
            plain = model(*graph.args, **graph.kwargs)
            truth = traced(*graph.args, **graph.kwargs)
        if _equal(plain, truth):
            return Operated(model, "plain")
        reason = f"{type(model).__name__} computes something else once its attributes are changed"
    except Exception as error:
        reason = f"{type(model).__name__} does not run with fewer channels: {str(error).splitlines()[0]}"
    return Operated(_complete(traced, model), "graph", reason)


def _complete(traced: TracedModule, model: nn.Module) -> TracedModule:
    """Carry over tensors that no op reads, so that the state dict keeps its names."""
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if not _has(traced, name):
            _put(traced, name, buffer, persistent=_persistent(model, name))
    return traced


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and torch.allclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def slice_optimizer(
    optimizer: torch.optim.Optimizer,
    names: dict[int, str],
    replaced: dict[int, nn.Parameter],
    model: nn.Module,
    source: nn.Module,
    keep: Keep,
) -> None:
    """Point the optimizer at the new parameters, and slice its state as they were sliced.

    `names` gives the name of each parameter before surgery, by identity.
    """
    if model is not source:
        for name, parameter in source.named_parameters():
            replaced.setdefault(id(parameter), get_tensor(model, name))  # type: ignore[arg-type]
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            new = replaced.get(id(parameter))
            if new is None:
                continue
            group["params"][index] = new
            state = optimizer.state.pop(parameter, {})
            axes = keep.get(names.get(id(parameter), ""), {})
            optimizer.state[new] = {
                key: sliced(value, axes)
                if isinstance(value, Tensor) and value.shape == parameter.shape
                else value
                for key, value in state.items()
            }

