"""Write a captured graph in the ops that integer kernels exist for. The module computes the same."""

from __future__ import annotations

import torch
from torch import fx

from lianzhi.graph import TracedModule, shape_of

aten = torch.ops.aten


def prepare(module: TracedModule) -> None:
    """Apply every rewriting, in place."""
    for node in [item for item in module.graph.nodes if item.target is aten.mean.dim]:
        _flatten_after_mean(module, node)
    module.recompile()


def is_global_pool(node: fx.Node) -> bool:
    """Whether an op is the mean over all positions of an image or a video, keeping its dimensions."""
    if node.target in (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default):
        return set(node.args[1]) == {1}  # type: ignore[arg-type]
    if node.target is not aten.mean.dim or len(node.args) < 3 or not node.args[2]:
        return False
    return _is_spatial(node)


def _is_spatial(node: fx.Node) -> bool:
    shape = shape_of(node.args[0])  # type: ignore[arg-type]
    dims = node.args[1]
    if shape is None or len(shape) not in (4, 5) or not isinstance(dims, (list, tuple)):
        return False
    return sorted(int(dim) % len(shape) for dim in dims) == list(range(2, len(shape)))  # type: ignore[call-overload]


def _flatten_after_mean(module: TracedModule, node: fx.Node) -> None:
    """A mean that drops its dimensions: keep them, so that its result can be quantized, and flatten."""
    if (len(node.args) > 2 and node.args[2]) or node.kwargs.get("keepdim") or not _is_spatial(node):
        return
    value = node.meta["val"]
    with module.graph.inserting_before(node):
        pooled = module.graph.call_function(aten.mean.dim, (node.args[0], node.args[1], True), node.kwargs)
        flat = module.graph.call_function(aten.flatten.using_ints, (pooled, 1))
    pooled.meta["val"] = value.reshape(*value.shape, *[1] * len(node.args[1]))  # type: ignore[arg-type]
    flat.meta["val"] = value
    node.replace_all_uses_with(flat)
    module.graph.erase_node(node)
