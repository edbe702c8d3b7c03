"""What a removal leaves: multiply-accumulates, parameters, bytes; counted from shapes, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lianzhi.graph import Graph, Groups, node_macs, shape_of
from lianzhi.graph.macs import batch_of


def count_left(quantity: str, graph: Graph, groups: Groups, removed: Tensor) -> int:
    """`macs` (one sample), `parameters` or `bytes` (of all tensors) after removal; a boolean a component says what goes."""
    return _COUNTS[quantity](graph, groups, removed)


def _macs(graph: Graph, groups: Groups, removed: Tensor) -> int:
    """Each product with the shapes that are left."""

    def left(value: Any) -> list[int] | None:
        return None if shape_of(value) is None else groups.kept_shape(value, removed)

    return sum(node_macs(node, left) for node in graph.nodes) // batch_of(graph)


def _parameters(graph: Graph, groups: Groups, removed: Tensor) -> int:
    return _numbers(groups, removed, lambda tensor: 1, dict(graph.module.named_parameters()))


def _bytes(graph: Graph, groups: Groups, removed: Tensor) -> int:
    module = graph.module
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return _numbers(groups, removed, lambda tensor: tensor.element_size(), tensors)


def _numbers(
    groups: Groups, removed: Tensor, weigh: Callable[[Tensor], int], tensors: dict[str, Tensor]
) -> int:
    keep = groups.keep(removed)
    total = 0
    for name, tensor in tensors.items():
        count = tensor.numel()
        for axis, indices in keep.get(name, {}).items():
            count = count // tensor.shape[axis] * len(indices)
        total += count * weigh(tensor)
    return total


_COUNTS: dict[str, Callable[[Graph, Groups, Tensor], int]] = {
    "macs": _macs,
    "parameters": _parameters,
    "bytes": _bytes,
}
