"""Channel groups: what can be removed, and which slices of which tensors go with it.

A *unit* is a component of tied labels: the smallest thing that can be removed. A *group* is a family of
units that touch the same axes of the same tensors, such as the 64 channels of a residual stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import Labels, Slot
from lianzhi.graph.rules import Flow, apply
from lianzhi.graph.trace import Graph


@dataclass(frozen=True)
class Group:
    """A family of units. `members[slot]` is (units, k): the indices on that axis that go with each unit."""

    name: str
    units: Tensor
    members: dict[Slot, Tensor]

    def __len__(self) -> int:
        return len(self.units)

    def to_dict(self) -> dict[str, Any]:
        """The group for people and machines: how many channels, and whose."""
        names = [f"{slot.tensor}[{slot.axis}]" for slot in self.members]
        return {"name": self.name, "channels": len(self), "members": names}


@dataclass(frozen=True)
class Groups:
    """All groups of a graph, what is frozen and why, and the labels behind them."""

    groups: list[Group]
    frozen: list[tuple[str, str]]
    labels: Labels
    component: Tensor
    flow: Flow
    aliases: dict[str, list[str]]

    def keep(self, removed: Tensor) -> dict[Slot, Tensor]:
        """For the components that are removed (a boolean a component): the kept indices of each touched axis."""
        result = {}
        for slot, start in self.labels.slots.items():
            gone = removed[self.component[start : start + self.labels.sizes[slot]]]
            if gone.any():
                result[slot] = torch.nonzero(~gone).reshape(-1)
        return result


def channel_groups(graph: Graph) -> Groups:
    """Find the channel groups of a captured graph.

    >>> from torch import nn
    >>> from lianzhi.graph import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    >>> groups = channel_groups(capture(net, torch.zeros(1, 3, 8, 8)))
    >>> [(group.name, len(group)) for group in groups.groups]
    [('0', 8)]
    """
    first, aliases, shapes = _tensors(graph)
    labels = Labels()
    flow = Flow(labels, first, shapes)
    for node in graph.nodes:
        apply(flow, node)
    component, reasons = labels.components()
    groups = _families(labels, component, reasons)
    return Groups(groups, _frozen(graph, labels, component, reasons), labels, component, flow, aliases)


def _tensors(graph: Graph) -> tuple[dict[str, str], dict[str, list[str]], dict[str, tuple[int, ...]]]:
    """First name of each tensor by identity (tied weights share one), all names of it, and its shape."""
    module = graph.module
    identity: dict[int, str] = {}
    first: dict[str, str] = {}
    aliases: dict[str, list[str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        leader = identity.setdefault(id(tensor), name)
        first[name] = leader
        aliases.setdefault(leader, []).append(name)
        shapes[leader] = tuple(tensor.shape)
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in first:
            value = module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor):
                first[str(node.target)] = str(node.target)
                aliases[str(node.target)] = [str(node.target)]
                shapes[str(node.target)] = tuple(value.shape)
    return first, aliases, shapes


def _families(labels: Labels, component: Tensor, reasons: dict[int, str]) -> list[Group]:
    """Units with the same signature (how many indices of which axes) form one group."""
    touched: dict[int, dict[Slot, list[int]]] = {}
    for slot, start in labels.slots.items():
        for index, unit in enumerate(component[start : start + labels.sizes[slot]].tolist()):
            if unit not in reasons:
                touched.setdefault(unit, {}).setdefault(slot, []).append(index)
    families: dict[tuple[tuple[Slot, int], ...], list[int]] = {}
    for unit, slots in touched.items():
        families.setdefault(tuple((slot, len(indices)) for slot, indices in slots.items()), []).append(unit)
    groups = []
    for signature, units in families.items():
        members = {slot: torch.tensor([touched[unit][slot] for unit in units]) for slot, _ in signature}
        groups.append(Group(_family_name(members), torch.tensor(units), members))
    return groups


def _family_name(members: dict[Slot, Tensor]) -> str:
    """The first layer that gives these channels."""
    for slot in members:
        if slot.axis == 0:
            return slot.tensor.rpartition(".")[0] or slot.tensor
    slot = next(iter(members))
    return slot.tensor.rpartition(".")[0] or slot.tensor


def _frozen(graph: Graph, labels: Labels, component: Tensor, reasons: dict[int, str]) -> list[tuple[str, str]]:
    """The layers whose output channels cannot go at all, with the reason."""
    result = []
    for slot, start in labels.slots.items():
        units = component[start : start + labels.sizes[slot]].unique().tolist()
        layer, _, leaf = slot.tensor.rpartition(".")
        if slot.axis == 0 and leaf == "weight" and all(unit in reasons for unit in units):
            result.append((layer, next((reasons[u] for u in units if reasons[u] != "fixed"), "fixed")))
    return list(dict(result).items())


def kept_shape(groups: Groups, node: fx.Node, removed: Tensor) -> list[int] | None:
    """The shape of a node's value after removal: survivors a dimension (traced batch)."""
    from lianzhi.graph.labels import varying_dims
    from lianzhi.graph.trace import shape_of

    shape = shape_of(node)
    if shape is None:
        return None
    result = list(shape)
    for layer in groups.flow.values.get(node, []):
        gone = removed[groups.component[layer]]
        for dim in varying_dims(layer):
            others = [other for other in range(gone.dim()) if other != dim]
            line = gone.all(others) if others else gone
            result[dim] = min(result[dim], int((~line).sum()))
    return result
