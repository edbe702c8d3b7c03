"""Ops that pick by tensors of indices, and those that make values without channels."""

from __future__ import annotations

import torch
from torch import fx

from lianzhi.graph.labels import core, varying_dims
from lianzhi.graph.rules.flow import Flow, literal, op_name, overloads, rule, sizes_of
from lianzhi.graph.trace import shape_of

aten = torch.ops.aten


@rule(aten.index.Tensor)
def index(flow: Flow, node: fx.Node) -> None:
    """Dimensions that are picked from stay whole; the others pass, wherever they come to stand."""
    source, picked = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    shape, rank = sizes_of(node), len(sizes_of(source))
    dims = [dim for dim, chosen in enumerate(picked) if chosen is not None]
    for chosen in picked:
        flow.freeze(flow.layers(chosen), f"it is an index of {op_name(node)}")
    shapes = [shape_of(chosen) for chosen in picked if chosen is not None]
    dtypes = [chosen.meta["val"].dtype for chosen in picked if chosen is not None]
    if any(found is None for found in shapes) or torch.bool in dtypes:
        flow.freeze(flow.layers(source), f"{op_name(node)} picks by a mask")
        return
    width = len(torch.broadcast_shapes(*[tuple(found) for found in shapes if found is not None]))
    together = dims == list(range(dims[0], dims[-1] + 1))
    start = dims[0] if together else 0
    rest = [dim for dim in range(rank) if dim not in dims]
    layers = []
    for layer in flow.restricted(flow.layers(source), dims, f"{op_name(node)} picks from it"):
        small = core(layer)
        view = [1] * len(shape)
        for place, dim in enumerate(rest):
            view[place if place < start else place + width] = small.shape[dim]
        layers.append(small.reshape(view).expand(shape))
    flow.put(node, layers)


@rule(aten.index_select.default)
def index_select(flow: Flow, node: fx.Node) -> None:
    """As `index`, along one dimension."""
    dim = int(literal(node.args[1])) % len(sizes_of(node))
    flow.freeze(flow.layers(node.args[2]), "it is an index of index_select")
    kept = flow.restricted(flow.layers(node.args[0]), [dim], "index_select picks from it")
    flow.put(node, [core(layer).expand(sizes_of(node)) for layer in kept])


@rule(aten.tril.default, aten.triu.default)
def triangle(flow: Flow, node: fx.Node) -> None:
    """A triangle over the last two dimensions, which stay."""
    rank = len(sizes_of(node))
    dims = [rank - 2, rank - 1]
    flow.put(node, flow.restricted(flow.layers(node.args[0]), dims, f"{op_name(node)} cuts a triangle of it"))


@rule(*overloads("arange scalar_tensor linspace eye"))
def constant(flow: Flow, node: fx.Node) -> None:
    """Values without channels."""


@rule(aten.slice_scatter.default, aten.select_scatter.default)
def scatter(flow: Flow, node: fx.Node) -> None:
    """A part is replaced. Along the dimension nothing can shrink; across it both meet."""
    base, part = node.args[0], node.args[1]
    shape = sizes_of(node)
    position = 2
    dim = int(literal(node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0))) % len(
        shape
    )
    reason = f"{op_name(node)} replaces a part of it"
    mine = flow.restricted(flow.layers(base), [dim], reason)
    theirs = flow.layers(part)
    if node.target is aten.select_scatter.default:
        theirs = [layer.unsqueeze(dim) for layer in theirs]
    theirs = flow.restricted(theirs, [dim], reason)
    operands = []
    for layers in (mine, theirs):
        by_dims: dict[frozenset[int], list[torch.Tensor]] = {}
        for layer in layers:
            by_dims.setdefault(varying_dims(layer), []).append(core(layer))
        operands.append(([1 if other == dim else size for other, size in enumerate(shape)], by_dims))
    flow.put(node, [core(layer).expand(shape) for layer in flow.meet_lifted(node, operands, shape)])
