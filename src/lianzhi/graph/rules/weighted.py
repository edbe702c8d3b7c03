"""Ops with weights: the input axis consumes labels, the output axis gives fresh ones."""

from __future__ import annotations

import operator
import string
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import compact, core, spread, varying_dims
from lianzhi.graph.rules.flow import (
    IN,
    OUT,
    Flow,
    Layers,
    Lifted,
    argument,
    literal,
    op_name,
    rule,
    sizes_of,
    stop,
)
from lianzhi.graph.rules.products import contract
from lianzhi.graph.trace import owner_of

aten = torch.ops.aten
_ROWS = {
    aten.slice.Tensor,
    aten.narrow.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.chunk.default,
}


def _weight(flow: Flow, node: fx.Node, position: int = 1) -> str | None:
    """The name of the weight; if it is computed, everything that flows in is frozen."""
    name = flow.tensor(node.args[position])
    if name is None:
        reason = f"the weight of {op_name(node)} is computed, not a parameter"
        stop(flow, node, reason)
        if owner_of(node):
            flow.blocked.setdefault(owner_of(node), reason)
    return name


def _bias(flow: Flow, node: fx.Node, produced: Tensor) -> None:
    value = argument(node, "bias")
    name = flow.tensor(value)
    if name is not None:
        flow.labels.tie(flow.axis(name, 0, "bias"), produced)
    elif isinstance(value, fx.Node):
        flow.labels.freeze(produced, f"the bias of {op_name(node)} is computed")
        flow.freeze(flow.layers(value), f"it is a computed bias of {op_name(node)}")


@rule(aten.linear.default)
def linear(flow: Flow, node: fx.Node) -> None:
    """(…, in) to (…, out) by a weight (out, in). Labels of other dimensions pass."""
    packed = _packed(flow, node.args[1])
    if packed is not None:
        _linear_of_a_part(flow, node, packed)
        return
    name, shape = _weight(flow, node), sizes_of(node)
    if name is None:
        return
    if len(flow.shapes[name]) != 2:
        stop(flow, node, "a linear layer with a vector for its weight")
        return
    source, last = node.args[0], len(shape) - 1
    passing = [layer for layer in flow.layers(source) if last not in varying_dims(layer)]
    consumed = flow.vector(source, last, "a linear layer reads it in another arrangement")
    flow.labels.tie(flow.axis(name, 1, IN), consumed)
    produced = flow.axis(name, 0, OUT)
    _bias(flow, node, produced)
    flow.put(node, [spread(produced, last, shape), *(core(layer).expand(shape) for layer in passing)])


def _packed(flow: Flow, value: Any) -> str | None:
    """The parameter of which a weight is some rows: queries, keys and values in one, as nn.MultiheadAttention has them."""
    rows = False
    while isinstance(value, fx.Node) and value.op == "call_function":
        if value.target is operator.getitem and value.args[0] in flow.parts:
            value = value.args[0]
        elif value.target in _ROWS and int(literal(argument(value, "dim"))) in (0, -2):
            value, rows = value.args[0], True
        else:
            return None
    name = flow.tensor(value) if rows else None
    return name if name in flow.trained and len(flow.shapes[str(name)]) == 2 else None


def _linear_of_a_part(flow: Flow, node: fx.Node, name: str) -> None:
    """The weight is a value with labels of its own, so that this is a product like another."""
    source, weight, shape = node.args[0], node.args[1], sizes_of(node)
    flow.axis(name, 0, OUT)
    flow.axis(name, 1, IN)
    batch = string.ascii_lowercase[: len(shape) - 1]
    operands = [
        (f"{batch}K", sizes_of(source), flow.layers(source)),
        ("OK", sizes_of(weight), flow.layers(weight)),
    ]
    product = contract(flow, node, operands, f"{batch}O", weighted=True)
    bias = argument(node, "bias")
    if isinstance(bias, fx.Node):
        lifted: Lifted = (list(shape), {})
        for layer in map(compact, product):
            lifted[1].setdefault(varying_dims(layer), []).append(core(layer.expand(shape)))
        product = flow.meet_lifted(node, [flow.lifted(bias, shape), lifted], shape)
    flow.put(node, product)


@rule(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
)  # fmt: skip
def convolution(flow: Flow, node: fx.Node) -> None:
    """Weight (out, in / groups, …)."""
    name, shape = _weight(flow, node), sizes_of(node)
    if name is None:
        return
    sizes = flow.shapes[name]
    groups = int(literal(argument(node, "groups")))
    channel = len(shape) - len(sizes) + 1
    consumed, passing = _consumed(flow, node, channel)
    produced = flow.axis(name, 0, OUT)
    if groups == 1:
        flow.labels.tie(flow.axis(name, 1, IN), consumed)
    else:
        _grouped(flow, name, groups, consumed, produced)
    _bias(flow, node, produced)
    flow.put(node, [spread(produced, channel, shape), *(core(layer).expand(shape) for layer in passing)])


def _consumed(flow: Flow, node: fx.Node, channel: int) -> tuple[Tensor, Layers]:
    """The labels of the input's channels, and the layers before them, which pass. Space cannot shrink."""
    source = node.args[0]
    rank = len(sizes_of(source))
    for layer in flow.layers(source):
        if channel not in varying_dims(layer) and varying_dims(layer) & set(range(channel + 1, rank)):
            flow.freeze([layer], f"{op_name(node)} runs over it")
    passing = [layer for layer in flow.layers(source) if varying_dims(layer) <= set(range(channel))]
    return flow.vector(source, channel, f"{op_name(node)} reads it in another arrangement"), passing


def _grouped(flow: Flow, name: str, groups: int, consumed: Tensor, produced: Tensor) -> None:
    """The unit is a whole group, or a position within every group, whichever is finer."""
    into, outof = consumed.view(groups, -1), produced.view(groups, -1)
    if groups >= max(into.shape[1], outof.shape[1]):
        flow.labels.tie(into, into[:, :1])
        flow.labels.tie(outof, outof[:, :1])
        flow.labels.tie(into[:, 0], outof[:, 0])
    else:
        flow.labels.tie(into, flow.axis(name, 1, IN).view(1, -1))
        flow.labels.tie(outof, outof[:1])


@rule(aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
def transposed(flow: Flow, node: fx.Node) -> None:
    """Weight (in, out / groups, …)."""
    name, shape = _weight(flow, node), sizes_of(node)
    if name is None:
        return
    groups = int(literal(argument(node, "groups")))
    sizes = flow.shapes[name]
    channel = len(shape) - len(sizes) + 1
    consumed, passing = _consumed(flow, node, channel)
    flow.labels.tie(flow.axis(name, 0, IN), consumed)
    if groups == 1:
        produced = flow.axis(name, 1, OUT)
    else:
        flow.axis(name, 0, OUT)
        produced = _grouped_transposed(flow, groups, consumed, sizes[1])
    _bias(flow, node, produced)
    flow.put(node, [spread(produced, channel, shape), *(core(layer).expand(shape) for layer in passing)])


def _grouped_transposed(flow: Flow, groups: int, consumed: Tensor, outputs: int) -> Tensor:
    """Whole groups: the rows of the weight go with them; its columns, which all groups share, stay."""
    produced = flow.labels.fresh(groups * outputs)
    into, outof = consumed.view(groups, -1), produced.view(groups, -1)
    flow.labels.tie(into, into[:, :1])
    flow.labels.tie(outof, into[:, :1])
    return produced


@rule(aten.embedding.default)
def embedding(flow: Flow, node: fx.Node) -> None:
    """Rows are words and stay; columns are channels."""
    name, shape = _weight(flow, node, 0), sizes_of(node)
    if name is None:
        return
    flow.freeze(flow.layers(node.args[1]), "these are indices into an embedding")
    flow.labels.freeze(flow.axis(name, 0, "words"), "these are the words of a vocabulary")
    flow.put(node, [spread(flow.axis(name, 1, OUT), len(shape) - 1, shape)])
