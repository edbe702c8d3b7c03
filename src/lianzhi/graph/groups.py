"""Channel groups: what can be removed, and which slices of which tensors go with it.

A *unit* is a component of tied labels: the smallest thing that can be removed. A *group* is a family of
units that touch the same axes of the same tensors, such as the 64 channels of a residual stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph.families import families
from lianzhi.graph.kinds import flags_of, kind_of, kinds
from lianzhi.graph.labels import Components, Slot, core, varying_dims
from lianzhi.graph.rules import OUT, Flow, apply
from lianzhi.graph.trace import Graph, shape_of


@dataclass(frozen=True)
class Group:
    """A family of units. `members[slot]` is (units, k): the indices on that axis that go with each unit.

    `kind` is ``heads`` (of attention), ``head_dim`` (dimensions of every head), ``hidden`` (what a residual stream carries), ``ffn``
    (between two linear layers) or ``channel``. `flags` says which ops take statistics over the channels that
    are left, so that the result is not merely that of silenced channels.
    """

    name: str
    units: Tensor
    members: dict[Slot, Tensor]
    roles: dict[Slot, frozenset[str]]
    kind: str = "channel"
    flags: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.units)

    @property
    def width(self) -> int:
        """Channels a unit: more than one where a grouped convolution or a concatenation ties them."""
        return max((self.members[slot].shape[1] for slot in self.slots(OUT)), default=1)

    def slots(self, role: str) -> list[Slot]:
        """The members that are there for a role: ``out``, ``in``, ``norm``, …"""
        return [slot for slot in self.members if role in self.roles[slot]]

    def layers(self) -> list[str]:
        """The layers whose output these channels are."""
        return list(dict.fromkeys(layer_of(slot) for slot in self.slots(OUT)))

    def to_dict(self) -> dict[str, Any]:
        """The group for people and machines: how many channels, and whose."""
        names = [f"{slot.tensor}[{slot.axis}]" for slot in self.members]
        return {
            "name": self.name,
            "kind": self.kind,
            "channels": len(self),
            "members": names,
            "flags": list(self.flags),
        }


@dataclass(frozen=True)
class Groups:
    """All groups of a graph, what is frozen and why, and the labels behind them."""

    groups: list[Group]
    frozen: list[tuple[str, str]]
    components: Components
    flow: Flow
    aliases: dict[str, list[str]]

    def keep(self, removed: Tensor) -> dict[str, dict[int, Tensor]]:
        """The kept indices of each axis that loses any, by tensor, for a boolean a component."""
        result: dict[str, dict[int, Tensor]] = {}
        for slot, labels in self.flow.labels.slots.items():
            gone = removed[self.components.of[labels]]
            if gone.any():
                result.setdefault(slot.tensor, {})[slot.axis] = torch.nonzero(~gone).reshape(-1)
        return result

    def gone(self, value: fx.Node, dim: int, removed: Tensor) -> Tensor:
        """What goes along one dimension of a node's value: a boolean an index."""
        shape = shape_of(value) or ()
        name = self.flow.tensor(value)
        if name is None:
            return self._gone(self.flow.values.get(value, []), shape, dim, removed)
        labels = self.flow.labels.slots.get(Slot(name, dim))
        return (
            torch.zeros(shape[dim], dtype=torch.bool)
            if labels is None
            else removed[self.components.of[labels]]
        )

    def part_gone(self, node: fx.Node, index: int, dim: int, removed: Tensor) -> Tensor:
        """`gone` for one of several tensors that a node gives."""
        value = node.meta["val"][index]
        return self._gone(
            self.flow.parts[node][index], tuple(int(size) for size in value.shape), dim, removed
        )

    def _gone(self, layers: list[Tensor], shape: tuple[int, ...], dim: int, removed: Tensor) -> Tensor:
        result = torch.zeros(shape[dim], dtype=torch.bool)
        for layer in layers:
            if dim in varying_dims(layer):
                small = removed[self.components.of[core(layer)]]
                others = [other for other in range(small.dim()) if other != dim]
                result |= small.all(others) if others else small
        return result

    def kept_shape(self, value: fx.Node, removed: Tensor) -> list[int]:
        """The shape of a node's value after removal, for the traced batch."""
        return [int((~self.gone(value, dim, removed)).sum()) for dim in range(len(shape_of(value) or ()))]


def channel_groups(graph: Graph, *, inner: bool = False) -> Groups:
    """Find the channel groups of a captured graph.

    Attention loses whole heads; with `inner`, a dimension of every head instead.

    >>> from torch import nn
    >>> from lianzhi.graph import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
    >>> groups = channel_groups(capture(net, torch.zeros(1, 3, 8, 8)))
    >>> [(group.name, len(group)) for group in groups.groups], groups.frozen
    ([('0', 8)], [('3', "it is the model's output")])
    """
    first, aliases, shapes = _tensors(graph)
    trained = [first[name] for name, _ in graph.module.named_parameters(remove_duplicate=False)]
    flow = Flow(first, shapes, trained=trained, inner=inner)
    for node in graph.nodes:
        apply(flow, node)
    components = flow.labels.solve()
    groups = _families(flow, components, kinds(graph, flow, components))
    return Groups(groups, _frozen(flow, components), components, flow, aliases)


def layer_of(slot: Slot) -> str:
    """The layer that a tensor belongs to (itself, where it belongs to the model)."""
    return slot.tensor.rpartition(".")[0] or slot.tensor


def _tensors(graph: Graph) -> tuple[dict[str, str], dict[str, list[str]], dict[str, tuple[int, ...]]]:
    """First name of each tensor by identity (tied weights share one), all names of it, and its shape."""
    identity: dict[int, str] = {}
    first: dict[str, str] = {}
    aliases: dict[str, list[str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in _named(graph):
        leader = identity.setdefault(id(tensor), name)
        if name not in first:
            first[name] = leader
            aliases.setdefault(leader, []).append(name)
            shapes[leader] = tuple(tensor.shape)
    return first, aliases, shapes


def _named(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers, and the constants of the capture."""
    module = graph.module
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
    for node in graph.nodes:
        if node.op == "get_attr":
            value: Any = module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, Tensor):
                yield str(node.target), value


def _families(flow: Flow, components: Components, found: dict[str, Tensor]) -> list[Group]:
    """Units with the same signature (how many indices of which axes) form one group."""
    groups: list[Group] = []
    seen: dict[str, int] = {}
    for chosen, members in families(flow.labels.slots, components, flow.pieces):
        if not any(slot.tensor in flow.trained for slot in members):
            continue  # constants alone: nothing to gain
        roles = {slot: frozenset(flow.roles.get(slot, ())) for slot in members}
        name = _family_name(members, roles)
        seen[name] = seen.get(name, 0) + 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        kind = kind_of(chosen, members, roles, flow, found)
        groups.append(Group(unique, chosen, members, roles, kind, flags_of(chosen, flow, components)))
    return groups


def _family_name(members: dict[Slot, Tensor], roles: dict[Slot, frozenset[str]]) -> str:
    """The first layer that gives these channels."""
    return next((layer_of(slot) for slot in members if OUT in roles[slot]), layer_of(next(iter(members))))


def _frozen(flow: Flow, components: Components) -> list[tuple[str, str]]:
    """The layers whose output channels cannot go at all, with the reason."""
    result: dict[str, str] = {}
    for slot, labels in flow.labels.slots.items():
        units = components.of[labels].unique().tolist()
        if OUT in flow.roles.get(slot, ()) and all(unit in components.reasons for unit in units):
            result.setdefault(layer_of(slot), components.reasons[units[0]])
    for layer, reason in flow.blocked.items():
        result.setdefault(layer, reason)
    return list(result.items())
