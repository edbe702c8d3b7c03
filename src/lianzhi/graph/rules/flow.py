"""The state of the walk over a graph: the labels of every value, and the steps that all rules share.

A value carries a list of label *layers* of its own shape, one for each independent set of dimensions; an
element goes if its label in any layer goes. A dimension that no layer varies on is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.errors import GraphError
from lianzhi.graph.labels import FIXED, Labels, Slot, along, compact, core, spread, varying_dims
from lianzhi.graph.trace import shape_of

Layers = list[Tensor]
Shape = tuple[int, ...]
Lifted = tuple[list[int], dict[frozenset[int], Layers]]
OUT, IN, NORM, VARIANCE, SCALE = "out", "in", "norm", "variance", "scale"
HEADS, INSIDE = "heads", "head_dim"


class Flow:
    """The labels of every value, while the graph is walked."""

    def __init__(
        self,
        names: dict[str, str],
        shapes: dict[str, Shape],
        *,
        trained: Collection[str] = (),
        inner: bool = False,
    ) -> None:
        self.labels = Labels()
        self.trained = frozenset(trained)  # first names of parameters; the rest are buffers and constants
        self.inner = inner  # whether attention loses dimensions inside its heads, not whole heads
        self.names = names  # what a get_attr node reads → the tensor's first name
        self.shapes = shapes  # first name → shape
        self.values: dict[fx.Node, Layers] = {}
        self.parts: dict[fx.Node, list[Layers]] = {}  # ops that give several tensors
        self.pads: dict[fx.Node, tuple[int, Tensor, Tensor]] = {}  # dimension, labels added before and after
        self.roles: dict[Slot, set[str]] = {}
        self.soft: list[tuple[int, int]] = []  # ranges of labels that give way: constants, grown dimensions
        self.over: dict[
            fx.Node, list[tuple[Tensor, str]]
        ] = {}  # ops that run over channels; reason "" if zeros do
        self.marks: dict[str, list[Tensor]] = {}  # labels by what they were seen to be
        self.pieces: list[
            Tensor
        ] = []  # labels that a slice or split cuts out: none of these may be left empty
        self.blocked: dict[str, str] = {}  # layers whose weights no rule reads, and why

    def layers(self, value: Any) -> Layers:
        """The layers of a node's value. A parameter that is read as a value has one layer an axis."""
        if not isinstance(value, fx.Node):
            return []
        if value.op == "get_attr" and value not in self.values:
            self.values[value] = self._read(value)
        return self.values.get(value, [])

    def _read(self, node: fx.Node) -> Layers:
        name = self.tensor(node)
        if name is None:
            return []
        shape = self.shapes[name]
        if name not in self.trained:
            for axis, size in enumerate(shape):
                if Slot(name, axis) not in self.labels.slots:
                    start = int(self.labels.axis(name, axis, size)[0]) if size else 0
                    self.soft.append((start, start + size))
        return [
            spread(self.labels.axis(name, axis, size), axis, shape)
            for axis, size in enumerate(shape)
            if size > 1
        ]

    def growing(self, size: int) -> Tensor:
        """Fresh labels of a dimension that a literal made: they give way where they meet channels askew."""
        labels = self.labels.fresh(size)
        self.soft.append((int(labels[0]), int(labels[0]) + size))
        return labels

    def is_soft(self, layer: Tensor) -> bool:
        """Whether a layer's labels are those of constants or grown dimensions alone."""
        small = core(layer)
        low, high = int(small.min()), int(small.max())
        return any(start <= low and high < stop for start, stop in self.soft)

    def runs_over(self, node: fx.Node, layers: Layers, reason: str = "") -> None:
        """An op's result depends on all survivors along a dimension; the proof runs it over these alone.

        With a `reason`, zeros in place of what goes would give another result: groups are flagged with it.
        """
        self.over.setdefault(node, []).extend((core(layer).reshape(-1).unique(), reason) for layer in layers)

    def mark(self, kind: str, layer: Tensor) -> None:
        """Note what these labels are, for the kind of their group."""
        self.marks.setdefault(kind, []).append(core(layer).reshape(-1).unique())

    def piece(self, layers: Layers, dim: int) -> None:
        """Note what is cut out of a dimension, which no later op may find empty."""
        self.pieces += [core(layer).reshape(-1).unique() for layer in layers if dim in varying_dims(layer)]

    def tensor(self, node: Any) -> str | None:
        """The first name of the tensor that a get_attr node reads."""
        if isinstance(node, fx.Node) and node.op == "get_attr":
            return self.names.get(str(node.target))
        return None

    def axis(self, name: str, axis: int, role: str) -> Tensor:
        """The labels of one axis of a tensor, and what the axis is there for."""
        self.roles.setdefault(Slot(name, axis), set()).add(role)
        return self.labels.axis(name, axis, self.shapes[name][axis])

    def put(self, node: fx.Node, layers: Layers) -> None:
        """Set the layers of a node's value."""
        self.values[node] = self.settled(layers)

    def put_parts(self, node: fx.Node, parts: Sequence[Layers]) -> None:
        """Set the layers of each tensor that a node gives."""
        self.parts[node] = [self.settled(layers) for layers in parts]

    def settled(self, layers: Layers) -> Layers:
        """Compact; drop what is fixed; freeze what would vanish as a whole."""
        kept = []
        for layer in map(compact, layers):
            dims = varying_dims(layer)
            if not dims:
                self.labels.freeze(core(layer), "it stands alone: nothing would be left")
                continue
            if len(dims) > 1:
                self.labels.box(layer)
            kept.append(layer)
        return kept

    def freeze(self, layers: Layers, reason: str) -> None:
        """None of these layers' labels can go."""
        for layer in layers:
            self.labels.freeze(core(layer), reason)

    def restrict(self, layer: Tensor, dims: Collection[int], reason: str) -> Tensor | None:
        """Make a layer the same along `dims`: tied there if it varies elsewhere too, else frozen (None)."""
        varying = varying_dims(layer)
        touched = varying & set(dims)
        if touched == varying:
            self.freeze([layer], reason)
            return None
        shape = layer.shape
        for dim in touched:
            first = layer.narrow(dim, 0, 1)
            self.labels.tie(layer, first)
            layer = first
        return layer.expand(shape)

    def restricted(self, layers: Layers, dims: Collection[int], reason: str) -> Layers:
        """`restrict` for a list: what is left varies on other dimensions only."""
        found = (
            self.restrict(layer, dims, reason) if varying_dims(layer) & set(dims) else layer
            for layer in layers
        )
        return [layer for layer in found if layer is not None]

    def vector(self, value: Any, dim: int, reason: str) -> Tensor:
        """The labels along one dimension of a value, `FIXED` where it has none.

        A layer that varies on other dimensions too is tied along them. Two layers on the dimension freeze.
        """
        layers = [layer for layer in self.layers(value) if dim in varying_dims(layer)]
        if len(layers) == 1:
            layer = self.restrict(layers[0], varying_dims(layers[0]) - {dim}, reason)
            assert layer is not None
            return along(layer, dim)
        self.freeze(layers, reason)
        return torch.full((sizes_of(value)[dim],), FIXED)

    def meet(
        self, node: fx.Node, values: Sequence[fx.Node], shape: Shape, *, skip: int | None = None
    ) -> Layers:
        """Values meet element by element, broadcast to `shape`: tie what meets, return the result's layers.

        Along dimension `skip` they do not meet (cat); layers that vary on it are left out.
        """
        return self.meet_lifted(node, [self.lifted(value, shape, skip) for value in values], shape)

    def meet_lifted(self, node: fx.Node, operands: Sequence[Lifted], shape: Shape) -> Layers:
        """`meet` for operands of which the extents, and the layers by the dimensions they vary on, are known."""
        result: dict[frozenset[int], Layers] = {}
        covered: set[frozenset[int]] = set()
        for index, (extents, layers) in enumerate(operands):
            for theirs in operands[index + 1 :]:
                covered |= self._meet_pair(node, (extents, layers), theirs)
            for dims, mine in layers.items():
                result.setdefault(dims, [layer.expand(shape) for layer in mine])
        return [layer for dims, found in result.items() if dims not in covered for layer in found]

    def lifted(self, value: fx.Node, shape: Shape, skip: int | None = None) -> Lifted:
        """An operand's extents aligned to the result's dimensions, and its layers by the dimensions they vary on."""
        own = sizes_of(value)
        new = len(shape) - len(own)
        extents = [1] * new + list(own)
        by_dims: dict[frozenset[int], Layers] = {}
        for layer in self.layers(value):
            dims = frozenset(dim + new for dim in varying_dims(layer))
            if skip not in dims:
                by_dims.setdefault(dims, []).append(core(layer).reshape([1] * new + list(core(layer).shape)))
        return extents, by_dims

    def _meet_pair(self, node: fx.Node, left: Any, right: Any) -> set[frozenset[int]]:
        """Tie two operands. Returns the dimensions of layers that are now the same as one on fewer dimensions."""
        covered: set[frozenset[int]] = set()
        for (_, mine), (extents, theirs) in ((left, right), (right, left)):
            for dims, layers in mine.items():
                same = theirs.get(dims, [])
                if same:
                    if theirs is right[1]:
                        self._tie_lists(node, layers, same)
                    continue
                real = {dim for dim in dims if extents[dim] > 1}
                if not real:
                    continue
                crossing = {other: found for other, found in theirs.items() if other & dims}
                if crossing and not self.inner:
                    if all(self.is_soft(layer) for layer in layers):
                        self.freeze(layers, f"{op_name(node)} meets channels in another arrangement")
                        continue
                    crossing = {
                        other: found
                        for other, found in crossing.items()
                        if not all(self.is_soft(layer) for layer in found)
                    }
                flat = [layer for found in crossing.values() for layer in found]
                if len(flat) == 1 and len(layers) == 1:
                    self.labels.tie_overlap(layers[0], flat[0])
                    covered |= {dims} if next(iter(crossing)) < dims else set()
                elif crossing:
                    self.freeze([*layers, *flat], f"{op_name(node)} meets channels in another arrangement")
                else:
                    reason = f"{op_name(node)} meets values that are not channels"
                    left = [self.restrict(layer, real, reason) for layer in layers]
                    covered |= {dims} if all(layer is None for layer in left) else set()
        return covered

    def _tie_lists(self, node: fx.Node, left: Layers, right: Layers) -> None:
        if len(left) != len(right):
            self.freeze([*left, *right], f"{op_name(node)} meets channels in another arrangement")
            return
        for mine, other in zip(left, right, strict=True):
            self.labels.tie(mine, other)


def sizes_of(value: Any) -> Shape:
    """The traced shape of a node that gives one tensor."""
    found = shape_of(value)
    if found is None:
        raise GraphError(f"'{value}' is not one tensor")
    return found


Rule = Callable[[Flow, fx.Node], None]
RULES: dict[Any, Rule] = {}


def rule(*ops: Any) -> Callable[[Rule], Rule]:
    """Register how labels flow through these ops."""

    def add(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return add


def overloads(names: str) -> list[Any]:
    """All overloads of the ATen ops of these names, those that this torch has."""
    packets = [getattr(torch.ops.aten, name, None) for name in names.split()]
    return [
        getattr(packet, overload)
        for packet in packets
        if packet is not None
        for overload in packet.overloads()
    ]


def apply(flow: Flow, node: fx.Node) -> None:
    """Let labels flow through one node. An op without a rule freezes what flows in: always sound."""
    if node.op == "output":
        for value in node.all_input_nodes:
            flow.freeze(flow.layers(value), "it is the model's output")
    elif node.op == "call_function":
        RULES.get(node.target, unknown)(flow, node)


def unknown(flow: Flow, node: fx.Node) -> None:
    """Freeze everything that flows into an op, for want of a rule."""
    stop(flow, node, f"there is no rule for {op_name(node)}")


def stop(flow: Flow, node: fx.Node, reason: str) -> None:
    """Freeze everything that flows into an op. Layers whose weights it reads are told apart from what they freeze."""
    for value in node.all_input_nodes:
        flow.freeze(flow.layers(value), reason)
        name = flow.tensor(value)
        if name in flow.trained and len(flow.shapes[str(name)]) > 1:
            flow.blocked.setdefault(str(name).rpartition(".")[0] or str(name), reason)


def op_name(node: fx.Node) -> str:
    """An op's name for people: ``aten.conv2d.default`` is ``conv2d``."""
    name = (
        str(node.target)
        if isinstance(node.target, torch._ops.OpOverload)
        else str(getattr(node.target, "__name__", node.target))
    )
    return name.removeprefix("aten.").partition(".")[0]


def literal(value: Any) -> Any:
    """Arguments with symbolic sizes replaced by the traced ones."""
    if isinstance(value, fx.Node):
        result = value.meta.get("val")
        return int(result.node.hint) if isinstance(result, torch.SymInt) else result
    if isinstance(value, (list, tuple)):
        return [literal(item) for item in value]
    return value


def argument(node: fx.Node, name: str) -> Any:
    """An op's argument by its name in the schema, its default where it is left out."""
    for position, entry in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if entry.name == name:
            if len(node.args) > position:
                return node.args[position]
            return node.kwargs.get(name, entry.default_value)
    raise KeyError(f"{node.target} has no argument '{name}'")
