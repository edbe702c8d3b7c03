"""What a group of channels is in the architecture: heads, hidden width, feed-forward width; and its flags.

Derived from structure: heads are what attention's products keep while they sum over it; hidden channels meet in
an addition of which one side was computed from the other (a residual stream) or come from an embedding;
feed-forward channels lie between linear layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import Components, Slot, core
from lianzhi.graph.rules import HEADS, IN, INSIDE, OUT, Flow
from lianzhi.graph.trace import Graph, shape_of

aten = torch.ops.aten
_ADDS = {aten.add.Tensor, aten.add_.Tensor}
HIDDEN, FFN, CHANNEL = "hidden", "ffn", "channel"
KINDS = (CHANNEL, HEADS, INSIDE, FFN, HIDDEN)


def kinds(graph: Graph, flow: Flow, components: Components) -> dict[str, Tensor]:
    """A boolean a component for each kind that the walk over the graph, or its residual additions, tell."""
    marks = {kind: list(found) for kind, found in flow.marks.items()}
    marks.setdefault(HIDDEN, []).extend(_residual(graph, flow))
    result = {}
    for kind, found in marks.items():
        hit = torch.zeros(components.count, dtype=torch.bool)
        if found:
            hit[components.of[torch.cat(found)]] = True
        result[kind] = hit
    return result


def _residual(graph: Graph, flow: Flow) -> list[Tensor]:
    """The labels of every sum of which one operand was computed from the other."""
    before: dict[fx.Node, int] = {}
    found = []
    for index, node in enumerate(graph.nodes):
        reached = 1 << index
        for value in node.all_input_nodes:
            reached |= before[value]
        before[node] = reached
        if node.target not in _ADDS:
            continue
        values = [value for value in node.args[:2] if isinstance(value, fx.Node) and shape_of(value)]
        if len(values) != 2 or shape_of(values[0]) != shape_of(values[1]):
            continue
        left, right = (before[value] for value in values)
        if left | right in (left, right):
            found += [core(layer).reshape(-1).unique() for layer in flow.layers(node)]
    return found


def kind_of(
    units: Tensor,
    members: dict[Slot, Tensor],
    roles: dict[Slot, frozenset[str]],
    flow: Flow,
    found: dict[str, Tensor],
) -> str:
    """The kind of a family of units."""
    giving = sum(OUT in roles[slot] for slot in members)
    for kind in (HIDDEN, HEADS, INSIDE):
        if kind in found and bool(found[kind][units].any()) and (kind != HIDDEN or giving > 1):
            return kind
    weights = [slot for slot in members if roles[slot] & {IN, OUT}]
    linear = all(len(flow.shapes[slot.tensor]) == 2 for slot in weights)
    read = any(IN in roles[slot] for slot in weights)
    return FFN if linear and giving and read else CHANNEL


def flags_of(units: Tensor, flow: Flow, components: Components) -> tuple[str, ...]:
    """The reasons for which a removal of these units is more than a silencing."""
    own = torch.zeros(components.count, dtype=torch.bool)
    own[units] = True
    reasons = {
        reason
        for entries in flow.over.values()
        for labels, reason in entries
        if reason and bool(own[components.of[labels]].any())
    }
    return tuple(sorted(reasons))
