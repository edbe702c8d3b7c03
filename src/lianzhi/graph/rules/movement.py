"""Ops that only move data: executed on the label tensors, so that no index arithmetic is written by hand."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import FIXED, along, compact, core, spread, varying_dims
from lianzhi.graph.rules.flow import (
    Flow,
    Layers,
    argument,
    literal,
    op_name,
    overloads,
    rule,
    sizes_of,
    stop,
    unknown,
)
from lianzhi.graph.trace import shape_of

aten = torch.ops.aten
_RESHAPES = {aten.view.default, aten._unsafe_view.default}


@rule(
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.permute.default,
    aten.transpose.int, aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims,
    aten.squeeze.default, aten.unsqueeze.default, aten.t.default, aten.swapaxes.default, aten.movedim.int,
    aten.flip.default, aten.numpy_T.default, aten.mT.default, aten.pixel_unshuffle.default,
    aten.unsqueeze_.default, aten.squeeze_.dim, aten.transpose_.default, aten.repeat.default, aten.tile.default,
    aten.repeat_interleave.self_int, aten.movedim.intlist, 
)  # fmt: skip
def move(flow: Flow, node: fx.Node) -> None:
    """The order of survivors is the order of survivors, wherever they stand."""
    flow.put(node, _without_soft(flow, node, _executed(node, flow.layers(node.args[0]))))


def _without_soft(flow: Flow, node: fx.Node, layers: Layers) -> Layers:
    """Where a reshape merged a grown dimension with channels (repeated key/value heads), it stays whole."""
    if len(layers) < 2:
        return layers
    layers = [compact(layer) for layer in layers]
    kept = []
    for layer in layers:
        others = [varying_dims(other) for other in layers if other is not layer]
        if any(dims & varying_dims(layer) for dims in others) and flow.is_soft(layer):
            flow.freeze([layer], f"{op_name(node)} merges it with channels")
        else:
            kept.append(layer)
    return kept


def _executed(node: fx.Node, layers: Layers) -> Layers:
    op = aten.reshape.default if node.target in _RESHAPES else node.target
    arguments = [literal(item) for item in node.args[1:]]
    keywords = {key: literal(value) for key, value in node.kwargs.items() if key != "memory_format"}
    return [op(layer, *arguments, **keywords) for layer in layers]  # type: ignore[operator]


@rule(aten.slice.Tensor, aten.narrow.default)
def cut(flow: Flow, node: fx.Node) -> None:
    """The bounds are rewritten later; a step over channels cannot be."""
    layers = flow.layers(node.args[0])
    dim = int(literal(argument(node, "dim"))) % len(sizes_of(node.args[0]))
    if node.target is aten.slice.Tensor and literal(argument(node, "step")) != 1:
        layers = flow.restricted(layers, [dim], "slice takes every second or third of them")
    parts = [compact(part) for part in _executed(node, layers)]
    if sizes_of(node)[dim] < sizes_of(node.args[0])[dim]:
        flow.piece(parts, dim)
    flow.put(node, parts)


@rule(aten.select.int)
def select(flow: Flow, node: fx.Node) -> None:
    """One index of a dimension: what varies along it alone cannot shrink there."""
    dim = int(literal(node.args[1])) % len(sizes_of(node.args[0]))
    flow.put(
        node, _executed(node, flow.restricted(flow.layers(node.args[0]), [dim], "select picks a single one"))
    )


@rule(aten.roll.default)
def roll(flow: Flow, node: fx.Node) -> None:
    """A shift along a dimension that shrinks would be another shift."""
    rank = len(sizes_of(node))
    dims = [dim % rank for dim in literal(argument(node, "dims"))] or list(range(rank))
    flow.put(
        node,
        _executed(
            node, flow.restricted(flow.layers(node.args[0]), dims, "roll moves them by a fixed number")
        ),
    )


@rule(aten.pixel_shuffle.default)
def pixel_shuffle(flow: Flow, node: fx.Node) -> None:
    """(C·r², H, W) to (C, H·r, W·r): the r² channels of one result go together."""
    factor = int(literal(node.args[1])) ** 2
    _tie_blocks(flow, node, factor, inner=True)
    flow.put(node, _executed(node, _first_of_block(flow, node, factor)))


def _first_of_block(flow: Flow, node: fx.Node, factor: int) -> Layers:
    """Layers in which all channels of a block have the label of the first one, to which they are tied."""
    shape = sizes_of(node.args[0])
    channel = len(shape) - 3
    result = []
    for layer in flow.layers(node.args[0]):
        if channel in varying_dims(layer):
            blocks = layer.unflatten(channel, (-1, factor))
            layer = blocks.narrow(channel + 1, 0, 1).expand(blocks.shape).flatten(channel, channel + 1)  # noqa: PLW2901
        result.append(layer)
    return result


@rule(aten.channel_shuffle.default)
def channel_shuffle(flow: Flow, node: fx.Node) -> None:
    """The number of groups stays, so that the same positions go in every group."""
    shape = sizes_of(node)
    _tie_blocks(flow, node, shape[1] // int(literal(node.args[1])), inner=False)
    flow.put(node, _executed(node, flow.layers(node.args[0])))


def _tie_blocks(flow: Flow, node: fx.Node, size: int, *, inner: bool) -> None:
    """Channels in blocks of `size`: tie those of one block (inner), or the same position of all blocks."""
    shape = sizes_of(node.args[0])
    channel = len(shape) - 3 if inner else 1
    for layer in flow.layers(node.args[0]):
        if channel in varying_dims(layer):
            blocks = layer.unflatten(channel, (-1, size))
            flow.labels.tie(blocks, blocks.narrow(channel + 1 if inner else channel, 0, 1))


@rule(aten.expand.default)
def expand(flow: Flow, node: fx.Node) -> None:
    """A dimension that grows from 1 to a literal size gets labels of its own: the size is rewritten later."""
    source, shape = sizes_of(node.args[0]), sizes_of(node)
    new = len(shape) - len(source)
    layers = [layer.expand(shape) for layer in flow.layers(node.args[0])]
    for dim, size in enumerate(node.args[1]):  # type: ignore[arg-type]
        grown = dim < new or source[dim - new] == 1
        if grown and isinstance(size, int) and size > 1:
            layers.append(spread(flow.growing(size), dim, shape))
    flow.put(node, layers)


@rule(aten.expand_as.default)
def expand_as(flow: Flow, node: fx.Node) -> None:
    """The result has the size of the other value, whatever that becomes."""
    shape = sizes_of(node)
    flow.put(node, flow.meet(node, list(node.args), shape))  # type: ignore[arg-type]


@rule(*overloads("zeros ones full new_zeros new_ones new_full"))
def create(flow: Flow, node: fx.Node) -> None:
    """A constant of a literal size: labels of its own, and the size is rewritten later."""
    shape = shape_of(node)
    if shape is None or "size" not in {entry.name for entry in node.target._schema.arguments}:  # type: ignore[union-attr]
        return
    sizes = list(argument(node, "size"))
    layers = [
        spread(flow.growing(size), dim, shape)
        for dim, size in enumerate(sizes)
        if isinstance(size, int) and size > 1
    ]
    flow.put(node, layers)


@rule(*overloads("split split_with_sizes chunk"))
def split(flow: Flow, node: fx.Node) -> None:
    """The parts of a split; their sizes are rewritten later."""
    layers = flow.layers(node.args[0])
    cuts: list[tuple[Tensor, ...]] = [tuple(parts) for parts in _executed(node, layers)]
    count = len(node.meta["val"])
    dim = int(literal(argument(node, "dim"))) % len(sizes_of(node.args[0]))
    outputs = [[compact(parts[index]) for parts in cuts] for index in range(count)]
    for layers in outputs if count > 1 else []:
        flow.piece(layers, dim)
    flow.put_parts(node, outputs)


@rule(aten.unbind.int)
def unbind(flow: Flow, node: fx.Node) -> None:
    """As `select`, for every index."""
    shape = sizes_of(node.args[0])
    dim = int(literal(argument(node, "dim"))) % len(shape)
    layers = flow.restricted(flow.layers(node.args[0]), [dim], "unbind picks single ones")
    flow.put_parts(node, [[layer.select(dim, index) for layer in layers] for index in range(shape[dim])])


@rule(operator.getitem)
def getitem(flow: Flow, node: fx.Node) -> None:
    source, index = node.args
    if source in flow.parts:
        flow.put(node, flow.parts[source][index])  # type: ignore[index]
    else:
        unknown(flow, node)


@rule(aten.cat.default)
def cat(flow: Flow, node: fx.Node) -> None:
    """Along the dimension one after the other; across it they meet."""
    values: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    shape = sizes_of(node)
    if any(len(sizes_of(value)) != len(shape) for value in values):
        stop(flow, node, "cat of tensors of different ranks")
        return
    dim = int(literal(argument(node, "dim"))) % len(shape)
    parts = [_lengthwise(flow, value, dim) for value in values]
    layers = flow.meet(node, values, _without(shape, dim), skip=dim)
    layers = [core(layer).expand(shape) for layer in layers]
    if any(bool((part != FIXED).any()) for part in parts):
        sizes = [max(part.shape[other] for part in parts) for other in range(len(shape))]
        wide = [part.expand([*sizes[:dim], part.shape[dim], *sizes[dim + 1 :]]) for part in parts]
        layers.append(torch.cat(wide, dim).expand(shape))
    flow.put(node, layers)


def _lengthwise(flow: Flow, value: fx.Node, dim: int) -> Tensor:
    """The labels of one operand along the dimension: its one layer there, else fixed."""
    shape = sizes_of(value)
    found = [layer for layer in flow.layers(value) if dim in varying_dims(layer)]
    if len(found) == 1:
        layer = core(found[0])
        return layer.expand(
            [size if other == dim else layer.shape[other] for other, size in enumerate(shape)]
        )
    flow.freeze(found, "cat along a dimension with two meanings")
    return torch.full([shape[dim] if other == dim else 1 for other in range(len(shape))], FIXED)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim + 1 :])


@rule(aten.stack.default)
def stack(flow: Flow, node: fx.Node) -> None:
    """The values meet; the new dimension is fixed."""
    values: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    inner, shape = sizes_of(values[0]), sizes_of(node)
    dim = int(literal(argument(node, "dim"))) % len(shape)
    flow.put(node, [layer.unsqueeze(dim).expand(shape) for layer in flow.meet(node, values, inner)])


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(flow: Flow, node: fx.Node) -> None:
    """What is added beside channels gets labels of its own; the amounts are rewritten later."""
    amounts, shape = literal(node.args[1]), sizes_of(node)
    constant = node.target is aten.constant_pad_nd.default or argument(node, "mode") == "constant"
    padded = {len(shape) - 1 - i // 2: (amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)}
    padded = {dim: added for dim, added in padded.items() if any(added)}
    labelled = [dim for layer in flow.layers(node.args[0]) for dim in varying_dims(layer) & set(padded)]
    layers = []
    for layer in flow.layers(node.args[0]):
        touched = varying_dims(layer) & set(padded)
        if not touched:
            layers.append(core(layer).expand(shape))
            continue
        dim = min(touched)
        simple = constant and len(labelled) == 1 and touched == varying_dims(layer) and min(padded[dim]) >= 0
        if not simple:
            flow.freeze([layer], f"{op_name(node)} adds or cuts in a way that cannot shrink")
            continue
        before, after = (flow.labels.fresh(amount) for amount in padded[dim])
        flow.pads[node] = (dim, before, after)
        layers.append(spread(torch.cat([before, along(layer, dim), after]), dim, shape))
    flow.put(node, layers)


@rule(*overloads("sym_size _assert_tensor_metadata"))
def nothing(flow: Flow, node: fx.Node) -> None:
    """A symbolic size is that of a dimension that no channel stands on (a literal one is no op)."""
