"""Where quantizers go: the result of a target's rules, and the rules that targets share.

The graph is walked from its outputs to its inputs. An op with weights and an integer kernel always wants its
input quantized. An element-wise op is computed in integers if somebody after it wants its result, so that
a residual sum between convolutions is, and one before a layer norm is not. Ops that only move values keep
the scale of what they move.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from lianzhi.graph import TracedModule
from lianzhi.quantize.placement import ops
from lianzhi.quantize.placement.names import is_float, layer_name
from lianzhi.quantize.placement.tables import place_tables
from lianzhi.quantize.prepare import is_global_pool

WHOLE = 2**63 - 1  # the end of a slice that takes everything


@dataclass
class Placement:
    """`values`: nodes whose result is quantized, in order; `shares`: of these, which take the scale of which.

    `groups`: values whose one scale, that of the first, holds the range of each.
    `weights`: ops whose weight is quantized; `tables`: look-ups whose table is; `left`: what stays float, with the reason.
    """

    values: list[fx.Node] = field(default_factory=list)
    shares: dict[fx.Node, fx.Node] = field(default_factory=dict)
    groups: list[list[fx.Node]] = field(default_factory=list)
    weights: list[fx.Node] = field(default_factory=list)
    tables: list[fx.Node] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """What a target has integer kernels for.

    `output_of`: ops whose result is always quantized, because the kernel needs it to be; `elementwise`: ops
    that are computed in integers when their result is wanted in integers. `adds_inside`: the kernel of a
    convolution adds a residual before it rounds, so that branch of a sum has no quantizer; without `adds_outside`
    other sums stay float. `concats_share`: the inputs and the result of a concatenation have one scale.
    `obstacle` says why a layer stays float all the same, `float_tables` why every embedding table does.
    """

    weighted: frozenset[Any] = frozenset(ops.WEIGHTED)
    output_of: frozenset[Any] = frozenset(ops.CONVOLUTIONS)
    elementwise: frozenset[Any] = frozenset(
        ops.SUMS | ops.PRODUCTS | ops.CONCATS | ops.AVERAGES | ops.GLOBAL_AVERAGES
    )
    moves: frozenset[Any] = frozenset(ops.MOVES)
    adds_inside: bool = False
    adds_outside: bool = True
    concats_share: bool = False
    obstacle: Callable[[TracedModule, fx.Node], str] | None = None
    float_tables: str = ""

    def stays_float(self, module: TracedModule, node: fx.Node) -> str:
        """Why the target is no faster with this layer in int8, or ""."""
        return self.obstacle(module, node) if self.obstacle is not None else ""


def tail(node: fx.Node) -> fx.Node:
    """The node whose result leaves the kernel of `node`: itself, or the clamp that is its only reader."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in ops.CLAMPS else node


def place(module: TracedModule, rules: Rules, ignored: Callable[[str], bool]) -> Placement:
    """Apply a target's rules to a graph whose BatchNorms are folded."""
    result = Placement()
    wanted: set[fx.Node] = set()
    together: list[list[fx.Node]] = []
    for node in reversed(list(module.graph.nodes)):
        if node.op != "call_function":
            continue
        if node.target in ops.TRANSPOSED and node.target not in rules.weighted:
            result.left.append(
                (layer_name(node), "the target has no integer kernel for transposed convolutions")
            )
        if node.target in ops.RECURRENT:
            steps = (layer_name(node), "the steps of a recurrent layer have no integer kernel")
            result.left += (
                [steps] if steps not in result.left else []
            )  # it may be called for each of two texts
        if node.target in rules.weighted:
            reason = _weighted_obstacle(node, ignored) or rules.stays_float(module, node)
            if reason:
                result.left.append((layer_name(node), reason))
                continue
            result.weights.append(node)
            wanted.add(source(node.args[0]))
            if node.target in rules.output_of:
                wanted.add(tail(node))
        elif node.target in rules.elementwise and tail(node) in wanted and not ignored(node.name):
            operands = [source(operand) for operand in _operands(node)]
            inside = _added_inside(node, operands) if rules.adds_inside else None
            if node.target in ops.SUMS and inside is None and not rules.adds_outside:
                continue
            wanted.update(operand for operand in operands if operand is not inside)
            if rules.concats_share and node.target in ops.CONCATS:
                together.append([tail(node), *operands])
        elif _moves(node, rules) and node in wanted:
            wanted.add(_moved(node))
    result.weights.reverse()
    result.left.reverse()
    result.tables, left = place_tables(module, result.weights, ignored, rules.float_tables)
    result.left += [item for item in left if item not in result.left]  # a layer and its own table once
    _collect(module, rules, wanted, result)
    _share(result, together)
    return result


def _collect(module: TracedModule, rules: Rules, wanted: set[fx.Node], result: Placement) -> None:
    """The wanted values in order; those that were only moved share the scale of their source."""
    taken: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node not in wanted or not is_float(node):
            continue
        taken.add(node)
        result.values.append(node)
        if _moves(node, rules):
            source = _moved(node)
            if source in taken:
                result.shares[node] = result.shares.get(source, source)


def _share(result: Placement, together: list[list[fx.Node]]) -> None:
    """Give sets of values that overlap one scale."""
    merged: list[set[fx.Node]] = []
    for nodes in together:
        new = {result.shares.get(node, node) for node in nodes if node in result.values}
        apart = [group for group in merged if not group & new]
        merged = [*apart, new.union(*(group for group in merged if group & new))]
    for group in merged:
        ordered = sorted(group)
        if len(ordered) > 1:
            result.groups.append(ordered)
            result.shares |= dict.fromkeys(ordered[1:], ordered[0])
            moved = [node for node, root in result.shares.items() if root in group and node is not ordered[0]]
            result.shares |= dict.fromkeys(moved, ordered[0])


def _weighted_obstacle(node: fx.Node, ignored: Callable[[str], bool]) -> str:
    weight = node.args[1]
    if ignored(layer_name(node)):
        return "ignored, as asked"
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return "its weight is computed, not a parameter"
    if not is_float(source(node.args[0])):
        return "its input is not float32"
    return ""


def _operands(node: fx.Node) -> list[fx.Node]:
    """The computed inputs of an element-wise op; none if one of them is a constant or is scaled."""
    values = node.args[0] if isinstance(node.args[0], (tuple, list)) else node.args[:2]
    scaled = node.target in ops.SUMS and node.kwargs.get("alpha", 1) != 1
    if node.target in ops.AVERAGES or is_global_pool(node):
        values = node.args[:1]
    elif scaled or node.target in ops.GLOBAL_AVERAGES:
        return []
    nodes = [value for value in values if isinstance(value, fx.Node) and value.op != "get_attr"]
    return nodes if len(nodes) == len(values) and all(is_float(item) for item in nodes) else []


def _added_inside(node: fx.Node, operands: list[fx.Node]) -> fx.Node | None:
    """The convolution that takes a sum into its kernel: the last one to run of those that nothing else reads."""
    if node.target not in ops.SUMS:
        return None
    alone = [item for item in operands if item.target in ops.CONVOLUTIONS and len(item.users) == 1]
    return max(alone) if alone else None


def _moves(node: fx.Node, rules: Rules) -> bool:
    if is_identity(node) or not rules.moves:
        return False
    if node.target in ops.PADS:
        return _pads_with_zero(node)
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and node.args[0].target in ops.SPLITS
    return node.op == "call_function" and node.target in rules.moves


def _moved(node: fx.Node) -> fx.Node:
    """The node whose values a move passes on."""
    split = node.target is operator.getitem
    return source(node.args[0].args[0] if split else node.args[0])  # type: ignore[union-attr]


def _pads_with_zero(node: fx.Node) -> bool:
    mode = node.args[2] if len(node.args) > 2 and node.target is torch.ops.aten.pad.default else "constant"
    position = 3 if node.target is torch.ops.aten.pad.default else 2
    value = node.args[position] if len(node.args) > position else node.kwargs.get("value", 0)
    return mode != "constant" or not value


def source(node: Any) -> fx.Node:
    """The node that makes a value, seen through ops that do nothing."""
    while is_identity(node):
        node = node.args[0]
    source: fx.Node = node
    return source


def is_identity(node: Any) -> bool:
    """Whether an op does nothing when the model is deployed."""
    if node.target is torch.ops.aten.slice.Tensor:
        return node.args[2:4] == (0, WHOLE) and len(node.args) < 5
    return node.target in ops.IDENTITIES
