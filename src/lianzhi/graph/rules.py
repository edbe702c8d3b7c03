"""How labels flow through each ATen op.

A value carries a list of label layers, one for each independent set of dimensions; an element goes if its
label in any layer goes. Ops that only move data are *executed on the label tensors*; element-wise ops tie
the labels that meet; weighted ops consume the labels of their input axis and give fresh ones to their
output axis. An op without a rule freezes what flows into it, with the reason: that is always sound.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import FIXED, Labels, along, compact, spread, varying_dims
from lianzhi.graph.trace import shape_of

aten = torch.ops.aten
Layers = list[Tensor]


class Flow:
    """The labels of every value, while the graph is walked."""

    def __init__(self, labels: Labels, names: dict[str, str], real: dict[str, tuple[int, ...]]) -> None:
        self.labels = labels
        self.names = names  # get_attr target → the tensor's first name (ties)
        self.real = real  # first name → shape
        self.values: dict[fx.Node, Layers] = {}
        self.rewrites: dict[fx.Node, Any] = {}  # pads: fresh labels before and after

    def layers(self, value: Any) -> Layers:
        if not isinstance(value, fx.Node):
            return []
        if value.op == "get_attr" and value not in self.values:
            self.values[value] = self._read(value)
        return self.values.get(value, [])

    def _read(self, node: fx.Node) -> Layers:
        """A parameter or buffer as a value: each of its axes is a layer. (Weighted ops read its name instead.)"""
        name = self.tensor(node)
        if name is None:
            return []
        shape = self.real[name]
        return [spread(self.labels.axis(name, axis, size), axis, shape) for axis, size in enumerate(shape) if size > 1]

    def put(self, node: fx.Node, layers: Layers) -> None:
        """Set a node's layers; layers that vary on several dimensions must stay rectangular."""
        kept = []
        for layer in layers:
            layer = compact(layer)  # noqa: PLW2901
            dims = varying_dims(layer)
            if not dims:
                self.labels.freeze(layer[tuple(0 for _ in layer.shape)].reshape(1), "a single channel is left")
                continue
            if len(dims) > 1:
                self._keep_rectangular(layer, dims)
            kept.append(layer)
        self.values[node] = kept

    def _keep_rectangular(self, layer: Tensor, dims: frozenset[int]) -> None:
        largest = max(dims, key=lambda dim: layer.shape[dim])
        for dim in dims - {largest}:
            self.labels.tie(layer, layer.narrow(dim, 0, 1))

    def freeze(self, layers: Layers, reason: str) -> None:
        for layer in layers:
            self.labels.freeze(layer, reason)

    def vector(self, value: Any, dim: int, size: int, reason: str) -> Tensor:
        """The labels along one dimension of a value, `FIXED` where it has none. Others on it are frozen."""
        found = None
        for layer in self.layers(value):
            dims = varying_dims(layer)
            if dim not in dims:
                continue
            if dims == {dim} and found is None:
                found = along(layer, dim)
            else:
                self.labels.freeze(layer, reason)
        return torch.full((size,), FIXED) if found is None else found

    def tensor(self, node: Any) -> str | None:
        """The tensor that a get_attr node reads."""
        if isinstance(node, fx.Node) and node.op == "get_attr":
            return self.names.get(str(node.target))
        return None


Rule = Callable[[Flow, fx.Node], None]
RULES: dict[Any, Rule] = {}


def rule(*ops: Any) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return add


def apply(flow: Flow, node: fx.Node) -> None:
    """Let labels flow through one node."""
    if node.op == "output":
        for value in node.all_input_nodes:
            flow.freeze(flow.layers(value), "the model's output")
    elif node.op == "call_function":
        if node.target in RULES:
            RULES[node.target](flow, node)
        else:
            unknown(flow, node, f"no rule for {_name(node)}")


def unknown(flow: Flow, node: fx.Node, reason: str) -> None:
    """Freeze everything that flows into a node."""
    for value in node.all_input_nodes:
        flow.freeze(flow.layers(value), reason)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.")


def _literal(value: Any) -> Any:
    """Arguments with symbolic sizes replaced by the traced ones."""
    if isinstance(value, fx.Node):
        result = value.meta.get("val")
        if isinstance(result, torch.SymInt):
            return int(result.node.hint)
        return result
    if isinstance(value, (list, tuple)):
        return [_literal(item) for item in value]
    return value


# ------------------------------------------------------------------ data movement


@rule(
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.permute.default,
    aten.transpose.int, aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.dim, aten.squeeze.dims,
    aten.squeeze.default, aten.unsqueeze.default, aten.slice.Tensor, aten.select.int, aten.narrow.default,
    aten.contiguous.default, aten.clone.default, aten.pixel_shuffle.default, aten.pixel_unshuffle.default,
    aten.channel_shuffle.default, aten.flip.default, aten.roll.default, aten.t.default, aten.alias.default,
    aten.swapaxes.default, aten.movedim.int,
)  # fmt: skip
def move(flow: Flow, node: fx.Node) -> None:
    """Execute the op on the labels themselves."""
    source, *rest = node.args
    arguments = [_literal(item) for item in rest]
    shape = shape_of(source)  # type: ignore[arg-type]
    op = aten.reshape.default if node.target in (aten.view.default, aten._unsafe_view.default) else node.target
    keywords = {key: _literal(value) for key, value in node.kwargs.items() if key not in ("memory_format",)}
    layers = []
    for layer in flow.layers(source):
        assert tuple(layer.shape) == shape
        layers.append(op(layer, *arguments, **keywords))
    if node.target in (aten.slice.Tensor, aten.select.int, aten.narrow.default):
        _check_cut(flow, node, arguments)
    flow.put(node, layers)


def _check_cut(flow: Flow, node: fx.Node, arguments: list[Any]) -> None:
    """A cut along a labelled dimension is rewritten later; steps and single picks are not."""
    dim = arguments[0] if arguments else 0
    source = node.args[0]
    for layer in flow.layers(source):
        dim = dim % layer.dim()
        labelled = dim in varying_dims(layer)
        stepped = node.target is aten.slice.Tensor and len(arguments) > 3 and arguments[3] != 1
        if labelled and (stepped or node.target is aten.select.int):
            flow.freeze([layer], f"{_name(node)} picks single channels")


@rule(aten.expand.default, aten.expand_as.default)
def expand(flow: Flow, node: fx.Node) -> None:
    source, shape = node.args[0], shape_of(node)
    assert shape is not None
    flow.put(node, [layer.expand(shape) for layer in flow.layers(source)])


@rule(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, aten.split.sizes)
def split(flow: Flow, node: fx.Node) -> None:
    """The parts of a split: kept as a list of layers a part, which `getitem` reads."""
    arguments = [_literal(item) for item in node.args[1:]]
    keywords = {key: _literal(value) for key, value in node.kwargs.items()}
    source = node.args[0]
    if node.target is aten.unbind.int:
        dim = arguments[0] if arguments else 0
        for layer in flow.layers(source):
            if dim % layer.dim() in varying_dims(layer):
                flow.freeze([layer], "unbind picks single channels")
    parts = [node.target(layer, *arguments, **keywords) for layer in flow.layers(source)]
    node.meta["label_parts"] = [list(layers) for layers in zip(*parts, strict=True)]
    flow.values[node] = flow.layers(source)


@rule(operator.getitem)
def getitem(flow: Flow, node: fx.Node) -> None:
    source, index = node.args
    parts = source.meta.get("label_parts") if isinstance(source, fx.Node) else None
    if parts is None:
        return unknown(flow, node, "takes an element of a tuple")
    if parts:
        flow.put(node, parts[index])  # type: ignore[index]
    return None


@rule(aten.cat.default)
def cat(flow: Flow, node: fx.Node) -> None:
    """Along the dimension: one after the other. Across it: tied."""
    values = list(node.args[0])  # type: ignore[arg-type]
    shape = shape_of(node)
    assert shape is not None
    dim = (_literal(node.args[1]) if len(node.args) > 1 else 0) % len(shape)
    layers = []
    lengthwise: Layers = []
    found = False
    for value in values:
        part = torch.full(shape_of(value), FIXED)  # type: ignore[arg-type]
        mine = [layer for layer in flow.layers(value) if dim in varying_dims(layer)]
        found = found or bool(mine)
        if mine:
            part = mine[0]
            flow.freeze(mine[1:], "cat of a dimension with two meanings")
        lengthwise.append(part)
    if found:
        layers.append(torch.cat([part.expand(part.shape) for part in lengthwise], dim))
    across = [[layer for layer in flow.layers(value) if dim not in varying_dims(layer)] for value in values]
    layers += _tie_across(flow, values, across, shape, dim)
    flow.put(node, layers)


def _tie_across(flow: Flow, values: Any, across: list[Layers], shape: tuple[int, ...], dim: int) -> Layers:
    by_dims: dict[frozenset[int], list[Tensor]] = {}
    for layers in across:
        for layer in layers:
            by_dims.setdefault(varying_dims(layer), []).append(layer.narrow(dim, 0, 1))
    result = []
    for layers in by_dims.values():
        if len(layers) < len(values):
            flow.freeze(layers, "cat with values that are not channels")
            continue
        for other in layers[1:]:
            flow.labels.tie(layers[0], other)
        result.append(layers[0].expand(shape))
    return result


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(flow: Flow, node: fx.Node) -> None:
    """Zeros beside channels get labels of their own; the amounts are rewritten later."""
    source, amounts = node.args[0], _literal(node.args[1])
    mode = node.args[2] if node.target is aten.pad.default and len(node.args) > 2 else "constant"
    value = node.args[-1] if len(node.args) > (3 if node.target is aten.pad.default else 2) else None
    shape, before = shape_of(node), shape_of(source)  # type: ignore[arg-type]
    assert shape is not None and before is not None
    padded = {len(shape) - 1 - i // 2: (amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)}
    layers = []
    for layer in flow.layers(source):
        dims = varying_dims(layer)
        touched = [dim for dim in dims if any(padded.get(dim, (0, 0)))]
        if not touched:
            small = layer
            for dim in set(padded) - dims:
                small = small.narrow(dim, 0, 1)
            layers.append(small.expand(shape))
            continue
        start, end = padded[touched[0]]
        plain = mode == "constant" and value in (None, 0, 0.0) and dims == {touched[0]} and min(start, end) >= 0
        if not plain:
            flow.freeze([layer], f"{_name(node)} fills channels in a way that cannot shrink")
            continue
        dim = touched[0]
        fresh = (flow.labels.fresh(start), flow.labels.fresh(end))
        flow.rewrites[node] = (dim, *fresh)
        layers.append(spread(torch.cat([fresh[0], along(layer, dim), fresh[1]]), dim, shape))
    flow.put(node, layers)


# ------------------------------------------------------------------ element-wise and reductions

_UNARY = """relu relu_ gelu silu silu_ sigmoid sigmoid_ tanh tanh_ hardswish hardswish_ hardsigmoid hardsigmoid_
hardtanh hardtanh_ relu6 relu6_ leaky_relu leaky_relu_ elu elu_ selu celu softplus mish mish_ erf exp log sqrt rsqrt
neg abs square clamp clamp_min clamp_max dropout dropout_ feature_dropout feature_dropout_ alpha_dropout to
_to_copy detach detach_ lift_fresh_copy sin cos log1p logit sign reciprocal round floor type_as"""
_BINARY = "add add_ sub sub_ mul mul_ div div_ maximum minimum pow rsub fmod"


def _overloads(names: str) -> list[Any]:
    found = []
    for name in names.split():
        packet = getattr(aten, name, None)
        found += [getattr(packet, overload) for overload in packet.overloads()] if packet is not None else []
    return found


@rule(*_overloads(_UNARY))
def unary(flow: Flow, node: fx.Node) -> None:
    flow.put(node, flow.layers(node.args[0]))


@rule(*_overloads(_BINARY), aten.where.self, aten.lerp.Tensor, aten.addcmul.default)
def elementwise(flow: Flow, node: fx.Node) -> None:
    """Tie the labels that meet; a layer that meets a real extent without labels is frozen."""
    shape = shape_of(node)
    operands = [value for value in node.args if isinstance(value, fx.Node) and shape_of(value) is not None]
    if shape is None:
        return unknown(flow, node, f"no shape for {_name(node)}")
    lifted = [(_lift(shape_of(value), shape), [_lift_layer(layer, shape) for layer in flow.layers(value)]) for value in operands]
    result: dict[frozenset[int], Tensor] = {}
    for index, (_, layers) in enumerate(lifted):
        for layer in layers:
            dims = varying_dims(layer)
            for other, (extents, theirs) in enumerate(lifted):
                if other != index and any(extents[dim] > 1 for dim in dims):
                    _meet(flow, node, layer, dims, theirs)
            result.setdefault(dims, layer)
    flow.put(node, list(result.values()))
    return None


def _lift(own: tuple[int, ...] | None, shape: tuple[int, ...]) -> list[int]:
    """An operand's extents aligned to the result's dimensions."""
    assert own is not None
    return [1] * (len(shape) - len(own)) + list(own)


def _lift_layer(layer: Tensor, shape: tuple[int, ...]) -> Tensor:
    dims = [dim + len(shape) - layer.dim() for dim in varying_dims(layer)]
    layer = layer.reshape([1] * (len(shape) - layer.dim()) + list(layer.shape))
    for dim in range(len(shape)):
        if dim not in dims:
            layer = layer.narrow(dim, 0, 1)
    return layer.expand(shape)


def _meet(flow: Flow, node: fx.Node, layer: Tensor, dims: frozenset[int], theirs: Layers) -> None:
    same = [other for other in theirs if varying_dims(other) == dims]
    if same:
        flow.labels.tie(layer, same[0])
        return
    crossing = [other for other in theirs if varying_dims(other) & dims]
    reason = "meets other channels in another arrangement" if crossing else "meets values that are not channels"
    flow.freeze([layer, *crossing], f"{_name(node)} {reason}")


@rule(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.max.dim, aten.var.correction)
def reduce(flow: Flow, node: fx.Node) -> None:
    """A reduction over space lets labels pass; over channels it changes its result, so they are frozen."""
    shape = shape_of(node)
    source = node.args[0]
    rank = len(shape_of(source) or ())  # type: ignore[arg-type]
    given = _literal(node.args[1]) if len(node.args) > 1 else None
    dims = [dim % rank for dim in (given if isinstance(given, list) else [given])] if given is not None else list(range(rank))
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    layers = []
    for layer in flow.layers(source):
        if varying_dims(layer) & set(dims):
            flow.freeze([layer], f"{_name(node)} runs over channels")
            continue
        for dim in sorted(dims, reverse=True):
            layer = layer.narrow(dim, 0, 1) if keep else layer.select(dim, 0)  # noqa: PLW2901
        layers.append(layer.expand(shape) if shape else layer)
    flow.put(node, layers)


@rule(*_overloads("""max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d
upsample_nearest1d instance_norm"""))  # fmt: skip
def pool(flow: Flow, node: fx.Node) -> None:
    """Pooling and resizing act on each channel alone."""
    shape = shape_of(node)
    if shape is None:
        return unknown(flow, node, f"{_name(node)} gives more than one value")
    layers = []
    for layer in flow.layers(node.args[0]):
        channel = len(shape) - (3 if "2d" in str(node.target) else 4 if "3d" in str(node.target) else 2)
        if varying_dims(layer) <= {0, channel}:
            for dim in range(channel + 1, layer.dim()):
                layer = layer.narrow(dim, 0, 1)  # noqa: PLW2901
            layers.append(layer.expand(shape))
        else:
            flow.freeze([layer], f"{_name(node)} runs over channels")
    flow.put(node, layers)
    return None


@rule(aten.sym_size.int, aten.arange.default, aten.full.default, aten.zeros.default, aten.ones.default)
def nothing(flow: Flow, node: fx.Node) -> None:
    """Sizes and constants carry no labels."""


# ------------------------------------------------------------------ weighted ops


def _weighted(flow: Flow, node: fx.Node, position: int = 1) -> tuple[str, tuple[int, ...]] | None:
    name = flow.tensor(node.args[position])
    if name is None:
        unknown(flow, node, f"{_name(node)} with a computed weight")
        return None
    return name, flow.real[name]


def _bias(flow: Flow, value: Any, produced: Tensor) -> None:
    name = flow.tensor(value)
    if name is not None:
        flow.labels.tie(flow.labels.axis(name, 0, flow.real[name][0]), produced)
    elif isinstance(value, fx.Node):
        flow.labels.freeze(produced, "a computed bias")


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


@rule(aten.linear.default)
def linear(flow: Flow, node: fx.Node) -> None:
    weight = _weighted(flow, node)
    shape = shape_of(node)
    if weight is None or shape is None:
        return
    name, (outputs, inputs) = weight
    source = node.args[0]
    last = len(shape) - 1
    consumed = flow.vector(source, last, inputs, "a linear layer reads it in another arrangement")
    flow.labels.tie(flow.labels.axis(name, 1, inputs), consumed)
    produced = flow.labels.axis(name, 0, outputs)
    _bias(flow, _argument(node, 2, "bias", None), produced)
    passing = [layer for layer in flow.layers(source) if last not in varying_dims(layer)]
    flow.put(node, [spread(produced, last, shape), *(layer.narrow(last, 0, 1).expand(shape) for layer in passing)])


@rule(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
def convolution(flow: Flow, node: fx.Node) -> None:
    weight = _weighted(flow, node)
    shape = shape_of(node)
    if weight is None or shape is None:
        return
    name, sizes = weight
    groups = int(_argument(node, 6, "groups", 1))
    channel = len(shape) - len(sizes) + 1
    inputs = sizes[1] * groups
    consumed = flow.vector(node.args[0], channel, inputs, "a convolution reads it in another arrangement")
    produced = flow.labels.axis(name, 0, sizes[0])
    if groups == 1:
        flow.labels.tie(flow.labels.axis(name, 1, sizes[1]), consumed)
    else:
        _grouped(flow, name, sizes, groups, consumed, produced)
    _bias(flow, _argument(node, 2, "bias", None), produced)
    flow.put(node, [spread(produced, channel, shape)])


def _grouped(flow: Flow, name: str, sizes: Any, groups: int, consumed: Tensor, produced: Tensor) -> None:
    """The unit is a whole group or a position within every group, whichever is finer."""
    into, outof = consumed.view(groups, -1), produced.view(groups, -1)
    if groups >= max(into.shape[1], outof.shape[1]):
        flow.labels.tie(into, into[:, :1])
        flow.labels.tie(outof, outof[:, :1])
        flow.labels.tie(into[:, 0], outof[:, 0])
    else:
        flow.labels.tie(into, flow.labels.axis(name, 1, sizes[1]).view(1, -1))
        flow.labels.tie(outof, outof[:1])


@rule(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
def transposed(flow: Flow, node: fx.Node) -> None:
    """Weight is (in, out, …)."""
    weight = _weighted(flow, node)
    shape = shape_of(node)
    if weight is None or shape is None:
        return
    name, sizes = weight
    if int(_argument(node, 6, "groups", 1)) != 1:
        unknown(flow, node, "a grouped transposed convolution")
        return
    channel = len(shape) - len(sizes) + 1
    consumed = flow.vector(node.args[0], channel, sizes[0], "a transposed convolution reads it in another arrangement")
    flow.labels.tie(flow.labels.axis(name, 0, sizes[0]), consumed)
    produced = flow.labels.axis(name, 1, sizes[1])
    _bias(flow, _argument(node, 2, "bias", None), produced)
    flow.put(node, [spread(produced, channel, shape)])


@rule(aten.embedding.default)
def embedding(flow: Flow, node: fx.Node) -> None:
    """Rows are words and stay; columns are channels."""
    weight = _weighted(flow, node, 0)
    shape = shape_of(node)
    if weight is None or shape is None:
        return
    name, (rows, width) = weight
    flow.labels.freeze(flow.labels.axis(name, 0, rows), "words of a vocabulary")
    flow.put(node, [spread(flow.labels.axis(name, 1, width), len(shape) - 1, shape)])


@rule(aten.batch_norm.default)
def batch_norm(flow: Flow, node: fx.Node) -> None:
    """Scale, shift and statistics go with their channel."""
    shape = shape_of(node)
    assert shape is not None
    vector = flow.vector(node.args[0], 1, shape[1], "BatchNorm reads it in another arrangement")
    for value in node.args[1:5]:
        name = flow.tensor(value)
        if name is not None:
            flow.labels.tie(flow.labels.axis(name, 0, shape[1]), vector)
    flow.put(node, flow.layers(node.args[0]))


@rule(aten.prelu.default)
def prelu(flow: Flow, node: fx.Node) -> None:
    name = flow.tensor(node.args[1])
    shape = shape_of(node)
    if name is not None and shape is not None and flow.real[name][0] > 1:
        vector = flow.vector(node.args[0], 1, shape[1], "PReLU reads it in another arrangement")
        flow.labels.tie(flow.labels.axis(name, 0, shape[1]), vector)
    flow.put(node, flow.layers(node.args[0]))
