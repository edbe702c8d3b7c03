"""Normalisation, softmax, and whatever else takes statistics over channels.

BatchNorm treats each channel alone. LayerNorm, RMSNorm, GroupNorm and softmax run over the channels that are
left, so that a removal changes their statistics: such groups are flagged (`Flow.runs_over`), not frozen.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from lianzhi.graph.labels import varying_dims
from lianzhi.graph.rules.flow import (
    NORM,
    SCALE,
    VARIANCE,
    Flow,
    Layers,
    argument,
    literal,
    op_name,
    overloads,
    rule,
    sizes_of,
    stop,
)

aten = torch.ops.aten


@rule(aten.batch_norm.default, aten.instance_norm.default)
def batch_norm(flow: Flow, node: fx.Node) -> None:
    """Scale, shift and statistics go with their channel; each channel is normalised alone."""
    source = node.args[0]
    vector = flow.vector(source, 1, f"{op_name(node)} reads it in another arrangement")
    for value, role in zip(node.args[1:5], (NORM, "shift", "mean", VARIANCE), strict=True):
        name = flow.tensor(value)
        if name is not None:
            flow.labels.tie(flow.axis(name, 0, role), vector)
        elif isinstance(value, fx.Node):
            stop(flow, node, f"{op_name(node)} with computed parameters")
    layers = flow.layers(source)
    if node.target is aten.instance_norm.default:
        rank = len(sizes_of(source))
        layers = flow.restricted(layers, range(2, rank), "InstanceNorm runs over it")
    flow.put(node, layers)


def over(flow: Flow, node: fx.Node, layers: Layers, dims: Collection[int], reason: str) -> Layers:
    """An op that runs over `dims`: layers on these alone may shrink (flagged); those across are tied along them.

    Returns the layers as they then are, on the dimensions of the source.
    """
    result = []
    for layer in layers:
        varying = varying_dims(layer)
        if not varying & set(dims):
            result.append(layer)
        elif varying <= set(dims):
            flow.runs_over(node, [layer], reason)
            result.append(layer)
        else:
            restricted = flow.restrict(layer, dims, reason)
            result += [] if restricted is None else [restricted]
    return result


@rule(aten.layer_norm.default, aten.rms_norm.default)
def layer_norm(flow: Flow, node: fx.Node) -> None:
    """Statistics run over the last dimensions: those of the survivors."""
    source = node.args[0]
    rank = len(sizes_of(node))
    count = len(argument(node, "normalized_shape"))
    dims = range(rank - count, rank)
    reason = f"{op_name(node)} takes its statistics over the channels that are left"
    layers = over(flow, node, flow.layers(source), dims, reason)
    for dim in dims:
        found = [layer for layer in layers if dim in varying_dims(layer)]
        if len(found) > 1:
            flow.freeze(found, f"{op_name(node)} reads it in another arrangement")
    flow.values[node] = layers
    for name, role in (("weight", SCALE), ("bias", "shift")):
        if name not in {entry.name for entry in node.target._schema.arguments}:  # type: ignore[union-attr]
            continue
        value = argument(node, name)
        tensor = flow.tensor(value)
        if tensor is not None:
            for axis, dim in enumerate(dims):
                vector = flow.vector(node, dim, f"{op_name(node)} reads it in another arrangement")
                flow.labels.tie(flow.axis(tensor, axis, role), vector)
        elif isinstance(value, fx.Node):
            stop(flow, node, f"{op_name(node)} with computed parameters")
    flow.put(node, layers)


@rule(aten.group_norm.default)
def group_norm(flow: Flow, node: fx.Node) -> None:
    """Whole groups go (exactly), or a position in every group (over other statistics), whichever is finer."""
    source, shape = node.args[0], sizes_of(node)
    groups = int(literal(argument(node, "num_groups")))
    reason = "GroupNorm takes its statistics over the channels that are left"
    space = flow.restricted(flow.layers(source), range(2, len(shape)), reason)
    vector = flow.vector(source, 1, "group_norm reads it in another arrangement")
    blocks = vector.view(groups, -1)
    if groups >= blocks.shape[1]:
        flow.labels.tie(blocks, blocks[:, :1])
    else:
        flow.labels.tie(blocks, blocks[:1])
        flow.runs_over(node, [layer for layer in space if 1 in varying_dims(layer)], reason)
    for name, role in (("weight", SCALE), ("bias", "shift")):
        value = argument(node, name)
        tensor = flow.tensor(value)
        if tensor is not None:
            flow.labels.tie(flow.axis(tensor, 0, role), vector)
        elif isinstance(value, fx.Node):
            stop(flow, node, "group_norm with computed parameters")
    flow.put(node, space)


@rule(*overloads("softmax log_softmax _softmax _log_softmax"))
def softmax(flow: Flow, node: fx.Node) -> None:
    """What is left sums to one."""
    dim = int(literal(argument(node, "dim"))) % len(sizes_of(node))
    reason = f"{op_name(node)} runs over the channels that are left"
    flow.put(node, over(flow, node, flow.layers(node.args[0]), [dim], reason))


@rule(*overloads("cumsum cumprod logcumsumexp"))
def cumulative(flow: Flow, node: fx.Node) -> None:
    """Each result depends on all before it along a dimension, which therefore cannot shrink."""
    dim = int(literal(argument(node, "dim"))) % len(sizes_of(node))
    flow.put(node, flow.restricted(flow.layers(node.args[0]), [dim], f"{op_name(node)} runs over channels"))
