"""Surgery: slice the tensors, keep the graph and the module's own attributes in step.

The rewritten graph is the truth. The plain module is returned only if, with its attributes synced, it
computes the same on noise; otherwise the captured graph module is the result.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lianzhi.errors import GraphError
from lianzhi.graph import Graph, Groups, TracedModule, replace_tensor
from lianzhi.graph.module import adopt, put_constant
from lianzhi.prune import proof, rewrite
from lianzhi.prune.config import has_config, sync_config
from lianzhi.prune.plain import run_with
from lianzhi.prune.slicing import Keep, point_optimizer, sliced, sliced_states
from lianzhi.prune.sync import sync_attributes


@dataclass(frozen=True)
class Operated:
    """The pruned module, and whether it is the ``plain`` module or the captured ``graph``."""

    module: nn.Module
    kind: str
    reason: str = ""
    every: bool = False  # how attributes were synced


def operate(
    graph: Graph, groups: Groups, removed: Tensor, *, in_place: bool, optimizer: torch.optim.Optimizer | None
) -> Operated:
    """Remove components (a boolean a component) from the graph's source model, or from a copy of it."""
    source = graph.source
    _check_sizes(graph, groups)
    keep = groups.keep(removed)
    first = {alias: leader for leader, aliases in groups.aliases.items() for alias in aliases}
    names = {id(parameter): first.get(name, name) for name, parameter in source.named_parameters()}
    states = {} if optimizer is None else sliced_states(optimizer, names, keep)
    found = rewrite.changes(graph, groups, removed)
    model = _copied(source, keep)
    _slice_tensors(model, source, keep, groups)
    traced = _traced(model, graph, groups, removed, keep)
    operated = _choose(graph, groups, keep, found, model, traced)
    if in_place and operated.kind == "plain":
        changed = operated.module
        _slice_tensors(source, changed, {}, groups, onto=keep)
        sync_attributes(source, found, every=operated.every)
        if has_config(source):  # its submodules hold the same object
            vars(source.config).update(vars(changed.config))
        operated = dataclasses.replace(operated, module=source)
    if optimizer is not None:
        point_optimizer(optimizer, names, operated.module, states)
    for module, mode in _modes(source):
        _set_mode(operated.module, module, mode)
    return operated


def _check_sizes(graph: Graph, groups: Groups) -> None:
    """Refuse a model that is no longer of the sizes that the plan was made for."""
    named = _tensors(graph.source)
    for name, shape in groups.flow.shapes.items():
        if name in named and tuple(named[name].shape) != shape:
            raise GraphError(
                f"the model's '{name}' has shape {tuple(named[name].shape)}, and had {shape} when the plan was made: a plan "
                "that was applied in place has done its work; make a new one of the model as it is"
            )


def _modes(source: nn.Module) -> list[tuple[str, bool]]:
    return [(name, module.training) for name, module in source.named_modules()]


def _set_mode(module: nn.Module, name: str, mode: bool) -> None:
    """Training mode of each submodule as it was in the source (of a graph module: as a whole)."""
    if isinstance(module, TracedModule):
        if not name:
            module.train(mode)
        return
    child = module.get_submodule(name)
    if isinstance(child, TracedModule):
        child.train(mode)
    child.training = mode


def _copied(source: nn.Module, keep: Keep) -> nn.Module:
    """A deep copy that does not copy what will be replaced anyway."""
    named = _tensors(source)
    memo: dict[int, Any] = {id(named[name]): named[name] for name in keep if name in named}
    for module in source.modules():  # what a hook computes anew for each call, as weight_norm does
        loose = [value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf]
        memo |= {id(value): value.detach().clone() for value in loose}
    try:
        return copy.deepcopy(source, memo)
    except Exception as error:
        raise GraphError(
            f"{type(source).__name__} cannot be copied ({error}); keep tensors that are computed out of its attributes"
        ) from error


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by every name that they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _slice_tensors(
    model: nn.Module, source: nn.Module, keep: Keep, groups: Groups, *, onto: Keep | None = None
) -> None:
    """Put slices of `source`'s tensors into `model`; with `onto`, its tensors of these names as they are."""
    named = _tensors(source)
    for name in keep if onto is None else onto:
        if name not in named:
            continue
        before = named[name]
        value = before
        if onto is None:
            value = sliced(before.detach(), keep[name])
            if isinstance(before, nn.Parameter):
                value = nn.Parameter(value, requires_grad=before.requires_grad)
        for alias in groups.aliases[name]:
            replace_tensor(model, alias, value)


def _traced(model: nn.Module, graph: Graph, groups: Groups, removed: Tensor, keep: Keep) -> TracedModule:
    """The rewritten graph over the model's tensors and the constants of the capture."""
    root = nn.Module()
    adopt(root, model)
    known = _tensors(model)
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and name not in known:
            value: Any = graph.module
            for part in name.split("."):
                value = getattr(value, part)
            if isinstance(value, Tensor):
                put_constant(root, name, sliced(value, keep.get(name, {})))
            else:
                root.add_module(name, value)
    traced = TracedModule(root, rewrite.rewritten(graph, groups, removed))
    adopt(traced, root)
    return traced


def _choose(
    graph: Graph,
    groups: Groups,
    keep: Keep,
    found: list[rewrite.Change],
    model: nn.Module,
    traced: TracedModule,
) -> Operated:
    """The plain module if it computes what the graph does, else the graph, and why."""
    if isinstance(model, TracedModule):
        return Operated(traced, "graph", "the model was a captured graph already")
    name = type(model).__name__
    small = proof.sliced_noise(graph, groups, keep, seed=1)
    own = _tensors(model)
    known = {key: value for key, value in small.items() if key in own}
    args, kwargs = proof.random_inputs(graph, seed=1)
    with torch.no_grad():
        truth = functional_call(traced, small, args, kwargs)
    reasons = []
    for every in (False, True):
        trial = copy.deepcopy(model, {id(tensor): tensor for tensor in own.values()})
        try:
            sync_attributes(trial, found, every=every)
            trial.eval()
            with torch.no_grad():
                plain = run_with(trial, known, args, kwargs)
            if proof.difference(plain, truth) >= 1e-4:
                raise GraphError(f"{name} computes something else once its attributes are changed")
            _check_training(graph, groups, trial, known)
        except Exception as error:
            shown = (str(error).strip().splitlines() or [type(error).__name__])[0]
            own_words = isinstance(error, GraphError)
            reasons.append(shown if own_words else f"{name} does not run with fewer channels: {shown}")
            continue
        reason = ""
        if has_config(trial) and not sync_config(trial, graph.source, args, kwargs):
            reason = f"no config of {name} says these sizes: save it with lianzhi.save, not save_pretrained"
        return Operated(trial, "plain", reason, every)
    return Operated(traced, "graph", reasons[0])


def _check_training(graph: Graph, groups: Groups, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Layers that run in training only are not in the graph: run them if there are any."""
    read = {groups.flow.tensor(node) for node in graph.nodes}
    unread = {name for name, _ in model.named_parameters() if name not in read}
    known = {id(parameter) for name, parameter in graph.source.named_parameters() if name in unread}
    if not known:
        return
    model.train()
    args, kwargs = proof.random_inputs(graph, seed=1)
    buffers = dict(model.named_buffers())
    copies: dict[int, Tensor] = {}
    for value in (*buffers.values(), *tensors.values()):
        copies.setdefault(id(value), value.clone())
    try:
        run_with(
            model, {name: copies[id(value)] for name, value in {**buffers, **tensors}.items()}, args, kwargs
        )
    finally:
        model.eval()
