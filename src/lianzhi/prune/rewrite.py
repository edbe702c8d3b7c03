"""Rewrite the captured graph for the channels that stay: sizes, splits, slices, pads, groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.errors import GraphError
from lianzhi.graph import Graph, Groups, shape_of
from lianzhi.graph.rules import argument, literal

aten = torch.ops.aten


@dataclass(frozen=True)
class Change:
    """One argument of one op: what it was, and what it becomes."""

    node: fx.Node
    name: str
    old: Any
    new: Any


Rewrite = Callable[[Groups, fx.Node, Tensor], dict[str, Any]]
REWRITES: dict[Any, Rewrite] = {}


def _rewrites(*ops: Any) -> Callable[[Rewrite], Rewrite]:
    def add(function: Rewrite) -> Rewrite:
        for op in ops:
            REWRITES[op] = function
        return function

    return add


def changes(graph: Graph, groups: Groups, removed: Tensor) -> list[Change]:
    """Every argument of the graph that has to change when components are removed (a boolean a component)."""
    found = []
    for node in graph.nodes:
        rewrite = REWRITES.get(node.target) if node.op == "call_function" else None
        for name, new in (rewrite(groups, node, removed) if rewrite else {}).items():
            old = argument(node, name)
            if not _same(old, new):
                found.append(Change(node, name, old, new))
    return found


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(a is b or a == b for a, b in zip(old, new, strict=True))
    return old is new or old == new


def _dim(node: fx.Node) -> int:
    return int(literal(argument(node, "dim"))) % len(shape_of(node.args[0]) or ())  # type: ignore[arg-type]


@_rewrites(
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default, aten.zeros.default,
    aten.ones.default, aten.full.default, aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
)  # fmt: skip
def _sizes(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    """Literal sizes follow the survivors; a symbol that mixes the batch with channels becomes -1."""
    name = "shape" if node.target is aten.reshape.default else "size"
    old = list(argument(node, name))
    shape, kept = shape_of(node), groups.kept_shape(node, removed)
    assert shape is not None
    offset = len(shape) - len(old)
    new = [
        size if kept[index + offset] == shape[index + offset] or size == -1
        else kept[index + offset] if isinstance(size, int) else -1
        for index, size in enumerate(old)
    ]  # fmt: skip
    if (
        sum(isinstance(size, int) and size == -1 for size in new) > 1
        and node.target is not aten.expand.default
    ):
        raise GraphError(f"'{node.name}' has two sizes that depend on the batch and on pruned channels")
    return {name: new}


@_rewrites(aten.unflatten.int)
def _unflatten(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    kept, dim = groups.kept_shape(node, removed), _dim(node)
    old = list(argument(node, "sizes"))
    return {
        "sizes": [
            kept[dim + i] if isinstance(size, int) and size != -1 else size for i, size in enumerate(old)
        ]
    }


@_rewrites(aten.pad.default, aten.constant_pad_nd.default)
def _pad(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    if node not in groups.flow.pads:
        return {}
    dim, before, after = groups.flow.pads[node]
    amounts = list(argument(node, "pad"))
    place = 2 * (len(shape_of(node) or ()) - 1 - dim)
    for index, labels in ((place, before), (place + 1, after)):
        amounts[index] = int((~removed[groups.components.of[labels]]).sum())
    return {"pad": amounts}


@_rewrites(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
    aten.conv3d.padding, aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
)  # fmt: skip
def _groups(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    """Groups that lost all their channels are gone: input channels that are left, over those of a group."""
    name = groups.flow.tensor(node.args[1])
    old = int(literal(argument(node, "groups")))
    if old == 1 or name is None:
        return {}
    sizes = groups.flow.shapes[name]
    rank = len(shape_of(node.args[0]) or ())  # type: ignore[arg-type]
    channel = rank - len(sizes) + 1
    stay = ~groups.gone(node.args[0], channel, removed)
    return {"groups": int(stay.view(old, -1).any(1).sum())}


@_rewrites(aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default, aten.chunk.default)
def _split(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    """Splits by a size or a number of parts become splits by the survivors of each part."""
    dim, parts = _dim(node), range(len(node.meta["val"]))
    gone = [groups.part_gone(node, index, dim, removed) for index in parts]
    if not any(bool(part.any()) for part in gone):
        return {}
    first = node.target._schema.arguments[1].name  # type: ignore[union-attr]
    return {first: [int((~part).sum()) for part in gone]}


@_rewrites(aten.slice.Tensor)
def _slice(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    stay = ~groups.gone(node.args[0], _dim(node), removed)
    if bool(stay.all()):
        return {}
    result = {}
    for name in ("start", "end"):
        bound = literal(argument(node, name))
        if bound is not None and bound < len(stay):
            result[name] = int(stay[:bound].sum())
    return result


@_rewrites(aten.narrow.default)
def _narrow(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    stay = ~groups.gone(node.args[0], _dim(node), removed)
    if bool(stay.all()):
        return {}
    start, length = int(literal(argument(node, "start"))), int(literal(argument(node, "length")))
    start += len(stay) if start < 0 else 0
    return {"start": int(stay[:start].sum()), "length": int(stay[start : start + length].sum())}


@_rewrites(aten.layer_norm.default, aten.rms_norm.default)
def _normalized(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    """The last dimensions, as they are left."""
    count = len(argument(node, "normalized_shape"))
    return {"normalized_shape": groups.kept_shape(node, removed)[-count:]}


@_rewrites(aten.group_norm.default)
def _num_groups(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    stay = ~groups.gone(node, 1, removed)
    return {"num_groups": int(stay.view(int(literal(argument(node, "num_groups"))), -1).any(1).sum())}


@_rewrites(aten.scaled_dot_product_attention.default)
def _scale(groups: Groups, node: fx.Node, removed: Tensor) -> dict[str, Any]:
    """Attention that loses dimensions inside its heads keeps the scale of the old ones."""
    query = node.args[0]
    gone = groups.gone(query, len(shape_of(query) or ()) - 1, removed)  # type: ignore[arg-type]
    if argument(node, "scale") is not None or not bool(gone.any()):
        return {}
    return {"scale": len(gone) ** -0.5}


def rewritten(graph: Graph, groups: Groups, removed: Tensor) -> fx.Graph:
    """A copy of the graph with all changes made. Traced shapes, which are no longer true, are left out."""
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    copied.output(copied.graph_copy(graph.module.graph, mapping))
    copied.set_codegen(graph.module.graph._codegen)
    for change in changes(graph, groups, removed):
        node = mapping[change.node]
        if node.target in (aten.split.Tensor, aten.chunk.default):
            node.target = aten.split_with_sizes.default
        _set(node, change.node.target._schema.arguments, change.name, _mapped(change.new, mapping))  # type: ignore[union-attr]
    for node in copied.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key not in ("val", "tensor_meta")}
    copied.lint()
    return copied


def with_argument(
    schema: Any, args: Any, kwargs: dict[str, Any], name: str, value: Any
) -> tuple[list[Any], dict[str, Any]]:
    """Set an argument by position, filling in the defaults of those before it; by name where it has no position."""
    if any(entry.name == name and entry.kwarg_only for entry in schema):
        return list(args), {**kwargs, name: value}
    kwargs = {key: item for key, item in kwargs.items() if key != name}
    args = list(args)
    position = next(index for index, entry in enumerate(schema) if entry.name == name)
    while len(args) <= position:
        entry = schema[len(args)]
        args.append(kwargs.pop(entry.name, entry.default_value))
    args[position] = value
    return args, kwargs


def _set(node: fx.Node, schema: Any, name: str, value: Any) -> None:
    args, kwargs = with_argument(schema, node.args, node.kwargs, name, value)
    node.args, node.kwargs = tuple(args), kwargs


def _mapped(value: Any, mapping: dict[fx.Node, fx.Node]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_mapped(item, mapping) for item in value]
    return mapping.get(value, value) if isinstance(value, fx.Node) else value
