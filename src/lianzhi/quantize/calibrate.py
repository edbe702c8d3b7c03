"""Run calibration batches through a graph and keep statistics of the values that get a quantizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.errors import DataError
from lianzhi.graph import TracedModule
from lianzhi.quantize.affine import FAKE_TENSOR, round_to_grid
from lianzhi.quantize.batches import parts
from lianzhi.quantize.observers import ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme

Visit = Callable[[fx.Node, Tensor], None]


class _Watched(fx.Interpreter):
    """Runs the graph node by node, frees what is no longer needed, and shows some results; errors are as they were raised."""

    def __init__(self, module: TracedModule, nodes: Iterable[fx.Node], visit: Visit) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.watched = set(nodes)
        self.visit = visit

    def run_node(self, n: fx.Node) -> Any:
        if n.target is FAKE_TENSOR:
            result = round_to_grid(*self.fetch_args_kwargs_from_env(n)[0])
        else:
            result = super().run_node(n)
        if n in self.watched:
            self.visit(n, result)
        return result


def watch(module: TracedModule, nodes: Iterable[fx.Node], batches: Iterable[Any], visit: Visit) -> None:
    """Run every batch, and call `visit` with each of these nodes and its result."""
    interpreter = _Watched(module, nodes, visit)
    with torch.no_grad():
        for batch in batches:
            interpreter.run(*batch)


def observe(
    module: TracedModule,
    nodes: list[fx.Node],
    batches: list[Any],
    *,
    histogram: bool,
    divisible: bool = False,
) -> dict[fx.Node, Statistics]:
    """Statistics of each node's values: one pass for the ranges, a second one for the histograms.

    Batches that are `divisible` run in parts; the range is that of the whole batch.
    """
    seen = {node: Statistics() for node in nodes}
    divided = [parts(module, batch, divisible=divisible) for batch in batches]

    def ranges(node: fx.Node, values: Tensor, same_batch: bool) -> None:
        seen[node].add_range(values, same_batch=same_batch)
        low, high = seen[node].batches[-1]
        if not (low > -float("inf") and high < float("inf")):
            raise DataError(
                f"the model's own values are not finite on the calibration data, first at '{node.name}'; "
                f"check the weights, and that the data are preprocessed as in training"
            )

    for pieces in divided:
        watch(module, nodes, pieces[:1], partial(ranges, same_batch=False))
        watch(module, nodes, pieces[1:], partial(ranges, same_batch=True))
    if histogram:
        watch(module, nodes, chain(*divided), lambda node, values: seen[node].add_counts(values))
    return seen


def ranges_of(
    seen: dict[fx.Node, Statistics], scheme: Scheme, observer: str, options: ObserverConfig
) -> dict[fx.Node, tuple[float, float]]:
    """Each node's range, by an observer."""
    find = registry.get(observer).build
    return {node: find(statistics, scheme, options) for node, statistics in seen.items()}


def first(value: Any) -> Tensor:
    """The first tensor of what a model returns."""
    while not isinstance(value, Tensor):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value
