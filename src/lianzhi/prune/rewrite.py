"""Rewrite the captured graph for the channels that stay: pads, splits, slices, views, groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph.groups import Groups, kept_shape
from lianzhi.graph.labels import varying_dims
from lianzhi.graph.trace import Graph, shape_of

aten = torch.ops.aten
Change = tuple[fx.Node, int, Any, Any]  # node, argument position, old, new

_SHAPE_ARGUMENT = {
    aten.view.default: 1,
    aten.reshape.default: 1,
    aten._unsafe_view.default: 1,
    aten.expand.default: 1,
}
_CONVOLUTIONS = (
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
)  # fmt: skip


def changes(graph: Graph, groups: Groups, removed: Tensor) -> list[Change]:
    """Every argument of the graph that has to change, with its old and new value."""
    found: list[Change] = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        for position, value in _new_arguments(groups, node, removed).items():
            old = node.args[position] if position < len(node.args) else None
            if not _same(old, value):
                found.append((node, position, old, value))
    return found


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(a is b or a == b for a, b in zip(old, new, strict=True))
    return old is new or old == new


def _new_arguments(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    if node.target in _SHAPE_ARGUMENT:
        return _shape(groups, node, removed)
    if node in groups.flow.rewrites:
        return _pad(groups, node, removed)
    if node.target in _CONVOLUTIONS:
        return _groups(groups, node, removed)
    if node.target in (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.split.sizes):
        return _split(groups, node, removed)
    if node.target in (aten.slice.Tensor, aten.narrow.default):
        return _slice(groups, node, removed)
    if node.target is aten.unflatten.int:
        return _unflatten(groups, node, removed)
    if node.target is aten.channel_shuffle.default:
        return {}
    return {}


def _shape(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    """Literal extents follow the survivors; symbols and -1 stay."""
    position = _SHAPE_ARGUMENT[node.target]
    old = list(node.args[position])  # type: ignore[arg-type]
    shape, kept = shape_of(node), kept_shape(groups, node, removed)
    assert shape is not None and kept is not None
    offset = len(shape) - len(old)
    new = [
        kept[index + offset] if isinstance(size, int) and size == shape[index + offset] and size > 1 else size
        for index, size in enumerate(old)
    ]
    return {position: new}


def _unflatten(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    shape, kept = shape_of(node), kept_shape(groups, node, removed)
    assert shape is not None and kept is not None
    dim, old = int(node.args[1]) % (len(shape_of(node.args[0]) or ())), list(node.args[2])  # type: ignore[arg-type, call-overload]
    return {2: [kept[dim + i] if size == shape[dim + i] else size for i, size in enumerate(old)]}


def _pad(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    dim, before, after = groups.flow.rewrites[node]
    amounts = list(node.args[1])  # type: ignore[arg-type]
    shape = shape_of(node)
    assert shape is not None
    place = 2 * (len(shape) - 1 - dim)
    for index, labels in ((place, before), (place + 1, after)):
        amounts[index] = int((~removed[groups.component[labels]]).sum())
    return {1: amounts}


def _groups(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    """Groups that lost all their channels are gone: count those of the input that are left."""
    old = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    source = shape_of(node.args[0])  # type: ignore[arg-type]
    kept = kept_shape(groups, node.args[0], removed)  # type: ignore[arg-type]
    if old == 1 or source is None or kept is None:
        return {}
    weight = groups.flow.tensor(node.args[1])
    assert weight is not None
    channel = len(source) - (len(groups.flow.real[weight]) - 1)
    positions = groups.flow.real[weight][1]
    gone = groups.labels.slots
    from lianzhi.graph.labels import Slot

    slot = Slot(weight, 1)
    if slot in gone:
        start = gone[slot]
        positions = int((~removed[groups.component[start : start + positions]]).sum())
    return {6: kept[channel] // positions}


def _split(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    """Splits by a size or a count become splits by the survivors of each part."""
    values = node.meta["val"]
    parts = [tuple(int(s) if isinstance(s, int) else int(s.node.hint) for s in value.shape) for value in values]
    source = shape_of(node.args[0])  # type: ignore[arg-type]
    assert source is not None
    dim = int(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)) % len(source)  # type: ignore[arg-type, call-overload]
    layers = [layer for layer in groups.flow.values.get(node.args[0], []) if dim in varying_dims(layer)]  # type: ignore[arg-type]
    if not layers:
        return {}
    gone = removed[groups.component[layers[0]]]
    others = [other for other in range(gone.dim()) if other != dim]
    line = gone.all(others) if others else gone
    sizes = [int((~piece).sum()) for piece in line.split([part[dim] for part in parts])]
    if sizes == [part[dim] for part in parts]:
        return {}
    return {1: sizes}


def _slice(groups: Groups, node: fx.Node, removed: Tensor) -> dict[int, Any]:
    source = shape_of(node.args[0])  # type: ignore[arg-type]
    if source is None:
        return {}
    dim = int(node.args[1] if len(node.args) > 1 else 0) % len(source)  # type: ignore[arg-type, call-overload]
    layers = [layer for layer in groups.flow.layers(node.args[0]) if dim in varying_dims(layer)]
    if not layers:
        return {}
    gone = removed[groups.component[layers[0]]]
    others = [other for other in range(gone.dim()) if other != dim]
    stay = ~(gone.all(others) if others else gone)
    size = source[dim]
    start = int(node.args[2] or 0) if len(node.args) > 2 else 0  # type: ignore[arg-type, call-overload]
    if node.target is aten.narrow.default:
        length = int(node.args[3])  # type: ignore[arg-type, call-overload]
        return {2: int(stay[:start].sum()), 3: int(stay[start : start + length].sum())}
    end = node.args[3] if len(node.args) > 3 else None
    last = size if end is None else int(end)  # type: ignore[arg-type, call-overload]
    start, last = (start + size if start < 0 else start), min(size, last + size if last < 0 else last)
    result: dict[int, Any] = {2: int(stay[:start].sum())}
    if len(node.args) > 3 and last < size:
        result[3] = int(stay[:last].sum())
    elif len(node.args) > 3:
        result[3] = end
    return result


def rewritten(graph: Graph, groups: Groups, removed: Tensor) -> fx.Graph:
    """A copy of the graph with all changes made."""
    copied = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    output = copied.graph_copy(graph.module.graph, mapping)
    original = next(node for node in graph.nodes if node.op == "output")
    copied.output(output)
    copied._codegen = graph.module.graph._codegen
    for node in copied.nodes:
        if node.op == "output":
            node.meta = dict(original.meta)
    for node, position, _, new in changes(graph, groups, removed):
        target = mapping[node]
        if node.target in (aten.split.Tensor, aten.chunk.default):
            target.target = aten.split_with_sizes.default
        arguments = list(target.args)
        while len(arguments) <= position:
            arguments.append(_default(node, len(arguments)))
        arguments[position] = _mapped(new, mapping)
        target.args = tuple(arguments)
        if node.target in _CONVOLUTIONS and "groups" in target.kwargs:
            target.kwargs = {key: value for key, value in target.kwargs.items() if key != "groups"}
    copied.lint()
    return copied


def _mapped(value: Any, mapping: dict[fx.Node, fx.Node]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_mapped(item, mapping) for item in value]
    return mapping.get(value, value) if isinstance(value, fx.Node) else value


def _default(node: fx.Node, position: int) -> Any:
    """The default of an argument that the node leaves out, from the op's schema."""
    argument = node.target._schema.arguments[position]  # type: ignore[union-attr]
    return node.kwargs.get(argument.name, argument.default_value)
