"""Batches of calibration data: how many samples they hold, the first of them, and parts that fit the processor's cache.

A batch is a list of the values of the graph's inputs, or a dict of arrays by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import fx

from lianzhi.graph import TracedModule, shape_of

Batch = TypeVar("Batch", list[Any], dict[str, Any])
PART_BYTES = 2**24  # a larger value leaves the cache, and the system maps fresh memory for it every time


def samples(batches: Sequence[Any]) -> int:
    """How many samples all batches hold: the length of their first input that has one.

    >>> import torch
    >>> samples([[torch.zeros(4, 2)], [torch.zeros(3, 2)], [torch.tensor(1.0)]])
    8
    """
    return sum(_length(batch) for batch in batches)


def few(batches: Sequence[Batch], limit: int, *, divisible: bool = False) -> list[Batch]:
    """The first batches, at most `limit` samples, yet at least one batch.

    >>> import torch
    >>> [len(batch[0]) for batch in few([[torch.zeros(4)], [torch.zeros(4)]], 6)]
    [4]

    Batches stay whole, since a model may fix their size; where it does not (`divisible`) the last one is cut:

    >>> [len(batch[0]) for batch in few([[torch.zeros(4)], [torch.zeros(4)]], 6, divisible=True)]
    [4, 2]
    """
    chosen: list[Batch] = []
    for batch in batches:
        length = _length(batch)
        if chosen and (limit <= 0 or (length > limit and not divisible)):
            break
        chosen.append(_cut(batch, 0, limit) if divisible and length > limit else batch)
        limit -= length
    return chosen


def parts(module: TracedModule, batch: list[Any], *, divisible: bool = True) -> list[list[Any]]:
    """A batch cut into so many samples that no value of the graph takes more than 16 MiB; whole unless `divisible`.

    What a graph computes of a sample does not depend on the others, but for the order in which floats are added.
    """
    length = _length(batch)
    count = min(length, math.ceil(_largest(module, batch) / PART_BYTES)) if divisible else 1
    if count <= 1:
        return [batch]
    size = math.ceil(length / count)
    return [_cut(batch, start, start + size) for start in range(0, length, size)]


def _length(batch: Any) -> int:
    values = batch.values() if isinstance(batch, dict) else batch
    return next((int(value.shape[0]) for value in values if value.ndim), 1)


def _cut(batch: Any, start: int, stop: int) -> Any:
    """These samples of a batch."""
    if isinstance(batch, dict):
        return {name: _slice(value, start, stop) for name, value in batch.items()}
    return [_slice(value, start, stop) for value in batch]


def _slice(value: Any, start: int, stop: int) -> Any:
    return value[start:stop] if value.ndim else value


def _largest(module: TracedModule, batch: list[Any]) -> float:
    """The bytes of the largest value that comes of the inputs, for a batch of this size."""
    computed: set[fx.Node] = set()
    largest, traced = 0, 0
    for node in module.graph.nodes:
        if node.op != "placeholder" and computed.isdisjoint(node.all_input_nodes):
            continue
        computed.add(node)
        shape = shape_of(node)
        if shape is not None:
            size = math.prod(shape)
            traced += size if node.op == "placeholder" else 0
            largest = max(largest, size * node.meta["val"].element_size())
    return largest * sum(value.numel() for value in batch) / max(1, traced)
