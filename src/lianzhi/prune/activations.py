"""Statistics of a group's activations over calibration data: the share of zeros, and the mean magnitude.

The activation of a producer is the value after the activation function that follows it: the first value of
the graph through which everything that the producer gives must pass and that an activation function has
shaped (x·sigmoid(x) written out counts as one), before the next layer with weights reads it. Where no
activation follows (the projection of an inverted residual) it is the value that the next layer reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from lianzhi.errors import DataError, GraphError
from lianzhi.graph import Graph, Group, Groups, capture, device_of, moved, shape_of, split_inputs
from lianzhi.graph.labels import core, varying_dims
from lianzhi.graph.rules import OUT
from lianzhi.prune import calibration

_NAMES = """relu relu_ relu6 relu6_ gelu gelu_ silu silu_ sigmoid sigmoid_ tanh tanh_ hardswish hardswish_ hardtanh
hardtanh_ hardsigmoid hardsigmoid_ leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ mish mish_ softplus prelu
rrelu threshold threshold_ clamp clamp_ clamp_min clamp_min_ log_sigmoid glu"""
FUNCTIONS = frozenset(_NAMES.split())


@dataclass(frozen=True)
class Activity:
    """What was seen of one activation of a group: one number a unit, means over samples and positions."""

    node: str
    zeros: Tensor
    magnitude: Tensor


def activation_nodes(graph: Graph, groups: Groups, group: Group) -> list[fx.Node]:
    """The values to watch for a group: one a producing layer, each once."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    weights = {slot.tensor for slot in group.slots(OUT)}
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        reads = {groups.flow.tensor(value) for value in node.all_input_nodes}
        if reads & weights and _units_along(groups, group, node) is not None:
            found[_after(groups, group, node, order)] = None
    return list(found)


def _after(groups: Groups, group: Group, producer: fx.Node, order: dict[fx.Node, int]) -> fx.Node:
    """The activation that follows a producer."""
    reached, shaped, first = {producer: producer}, False, None
    last = producer
    for node in sorted(order, key=order.__getitem__)[order[producer] + 1 :]:
        if not any(value in reached for value in node.all_input_nodes):
            continue
        weighted = any(
            groups.flow.tensor(value) is not None and _is_weight(groups, value)
            for value in node.all_input_nodes
        )
        if weighted or _units_along(groups, group, node) is None:
            if shape_of(node) is None:
                continue  # the size of a dimension
            break
        reached[node] = last = node
        if _function(node) in FUNCTIONS:
            shaped, first = True, first or node
        pending = [user for value in reached for user in value.users if value is not node and shape_of(user)]
        if shaped and all(order[user] <= order[node] for user in pending):
            return node
    return first or last


def _is_weight(groups: Groups, value: fx.Node) -> bool:
    """Whether a tensor is a matrix or a kernel (a scale or a bias is no layer of its own)."""
    name = groups.flow.tensor(value)
    return name is not None and len(groups.flow.shapes[name]) > 1


def _function(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0] if node.op == "call_function" else ""


def _units_along(groups: Groups, group: Group, node: fx.Node) -> tuple[list[int], Tensor] | None:
    """(the dimensions that do not matter, the unit at each place of the others); None: no unit of the group."""
    position = torch.full((groups.components.count,), -1)
    position[group.units] = torch.arange(len(group))
    for layer in groups.flow.values.get(node, []):
        small = position[groups.components.of[core(layer)]]
        if bool((small >= 0).any()):
            return sorted(set(range(layer.dim())) - varying_dims(layer)), small.reshape(-1)
    return None


class _Recorder(fx.Interpreter):
    """Runs a graph and hands the watched values to `see`, by the names of their nodes."""

    def __init__(self, graph: Graph, see: Any, watched: set[str]) -> None:
        super().__init__(graph.module)
        self.see, self.watched = see, watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.watched:
            self.see(n.name, value)
        return value


class _Captures:
    """The graph for batches of each shape: a model of tokens is captured anew for another length.

    The ops of a model are the same at every length, and so are the names of their nodes.
    """

    def __init__(self, graph: Graph, example_inputs: Any) -> None:
        self.first = graph
        self.by_shape = {_sizes(example_inputs): graph}

    def __call__(self, inputs: Any) -> Graph:
        sizes = _sizes(inputs)
        if sizes not in self.by_shape:
            try:
                found = capture(self.first.source, inputs)
            except GraphError:
                return self.first  # which says why these inputs do not run
            same = [node.name for node in found.nodes] == [node.name for node in self.first.nodes]
            self.by_shape[sizes] = found if same else self.first
        return self.by_shape[sizes]


def _sizes(inputs: Any) -> tuple[tuple[int, ...], ...]:
    """Every size but that of the batch."""
    leaves = pytree.tree_leaves(inputs)
    return tuple(tuple(leaf.shape[1:]) for leaf in leaves if isinstance(leaf, Tensor))


def collect(
    graph: Graph, groups: Groups, batches: Iterable[Any], example_inputs: Any
) -> dict[str, list[Activity]]:
    """Run the calibration data through the model in eval mode; the activities of each group by its name."""
    watched = {group.name: activation_nodes(graph, groups, group) for group in groups.groups}
    everything = {node.name for nodes in watched.values() for node in nodes}
    dims = {
        (group.name, node.name): _units_along(groups, group, node) for group in groups.groups for node in watched[group.name]
    }  # fmt: skip
    sums: dict[tuple[str, str], list[Tensor]] = {}
    by_node = {node: [key for key in dims if key[1] is node] for node in everything}
    index = size = 0

    def see(node: str, value: Tensor) -> None:
        if not bool(torch.isfinite(value).all()):
            raise DataError(f"calibration batch {index}: '{node}' gives values that are not finite")
        for key in by_node[node]:
            others, _ = dims[key]  # type: ignore[misc]
            parts = []
            for part in ((value == 0), value.abs()):
                small = part.to(torch.float64).mean(others) if others else part.to(torch.float64)
                parts.append(small.reshape(-1).cpu() * size)
            sums[key] = (
                [old + new for old, new in zip(sums[key], parts, strict=True)] if key in sums else parts
            )

    samples, device, graphs = 0, device_of(graph.module), _Captures(graph, example_inputs)
    for index, inputs, _ in calibration.read(batches, example_inputs):
        placed = moved(inputs, device)
        args, kwargs = split_inputs(placed)
        size = calibration.batch_size(inputs)
        runner = _Recorder(graphs(placed), see, everything)
        with torch.no_grad():
            try:
                runner.run(*args, *(kwargs[key] for key in graph.kwargs))
            except (RuntimeError, TypeError, KeyError) as error:
                raise DataError(_does_not_run(graph, index, error)) from error
        samples += size
    result: dict[str, list[Activity]] = {}
    for group in groups.groups:
        for node in watched[group.name]:
            _, units = dims[group.name, node.name]  # type: ignore[misc]
            zeros, magnitude = (
                _by_unit(total / samples, units, len(group)) for total in sums[group.name, node.name]
            )
            result.setdefault(group.name, []).append(Activity(node.name, zeros, magnitude))
    return result


def _does_not_run(graph: Graph, index: int, error: Exception) -> str:
    fixed = (
        ""
        if graph.dynamic_batch
        else "; the model fixes the batch: give batches of the size of example_inputs"
    )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"calibration batch {index} does not run through the model ({reason}){fixed}"


def _by_unit(values: Tensor, units: Tensor, count: int) -> Tensor:
    """Means over the places of each unit."""
    inside = units >= 0
    total = torch.zeros(count, dtype=torch.float64).index_add(0, units[inside], values[inside])
    places = torch.zeros(count, dtype=torch.float64).index_add(
        0, units[inside], torch.ones(int(inside.sum())).double()
    )
    return total / places.clamp_min(1)
