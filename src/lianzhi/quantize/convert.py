"""From a captured graph to one with quantizers: fold, rewrite, place, calibrate, insert, and the techniques that tune what is there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lianzhi.graph import Graph, TracedModule
from lianzhi.quantize.batches import parts
from lianzhi.quantize.control import Origin
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.insert import insert, insert_tables
from lianzhi.quantize.layers import choices_of, coarsen, in_float
from lianzhi.quantize.options import ignored
from lianzhi.quantize.placement import Placement, place, rules_of
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.ptq import REWRITE, Chosen
from lianzhi.quantize.ranges import Ranges, find
from lianzhi.quantize.scheme import Schemes
from lianzhi.quantize.table import Given


@dataclass(frozen=True)
class Settings:
    """What `quantize` was asked for, checked."""

    target: str
    grids: Schemes
    techniques: Sequence[Chosen]
    observer: str
    observer_options: Any
    ignore: Sequence[str]
    layers: Mapping[str, str] | None
    table: Given | None


@dataclass(frozen=True)
class Converted:
    """The quantized graph beside the float one with its norms folded, and how the one came from the other."""

    module: TracedModule
    floating: TracedModule
    placement: Placement
    ranges: Ranges
    origin: Origin
    techniques: list[dict[str, Any]]
    choices: dict[str, str]
    folded: list[str]
    unfolded: list[tuple[str, str]]

    @property
    def names(self) -> list[str]:
        """The nodes whose weights are quantized."""
        return [node.name for node in self.placement.weights]


def convert(model: nn.Module, graph: Graph, batches: list[list[Any]], settings: Settings) -> Converted:
    """Quantize a copy of a model's graph; `batches` set the ranges, unless a table does."""
    grids, divisible = settings.grids, graph.dynamic_batch
    rewriting = [item for item in settings.techniques if item.stage == REWRITE]
    module: TracedModule = copy.deepcopy(graph.module)
    prepare(module)
    folded, unfolded = fold_batch_norm(module)
    choices = choices_of(module, settings.layers)
    ignore = [*settings.ignore, *in_float(choices)]
    rules = rules_of(settings.target)
    placement = place(module, rules, ignored(module, ignore))
    applied = []
    for technique in rewriting:
        skipped = technique.apply(module, placement.weights, batches, technique.options, grids)
        applied.append(_said(technique, skipped))
    placement = place(module, rules, ignored(module, ignore))  # what was rewritten may read other values
    ranges = Ranges()
    if grids.activations is None:
        placement.values, placement.shares, placement.groups = [], {}, []
    else:
        ranges = find(
            module,
            placement,
            batches,
            grids.activations,
            model=model,
            target=settings.target,
            observer=settings.observer,
            options=settings.observer_options,
            rewriting=rewriting,
            path=settings.table,
            divisible=divisible,
        )
    floating = copy.deepcopy(module)
    insert(module, placement, ranges.bounds, grids)
    coarsen(module, choices)
    insert_tables(module, placement.tables)
    origin = Origin(floating, rules, ignored(floating, ignore), batches, divisible)
    made = Converted(module, floating, placement, ranges, origin, applied, choices, folded, unfolded)
    _tune(made, [item for item in settings.techniques if item.stage != REWRITE])
    return made


def _tune(made: Converted, techniques: Sequence[Chosen]) -> None:
    """Apply what changes weights behind their quantizers, in place."""
    batches, divisible = made.origin.batches, made.origin.divisible
    pieces = [part for batch in batches for part in parts(made.floating, batch, divisible=divisible)]
    for technique in techniques:
        given = pieces if technique.options.takes_parts else batches
        skipped = technique.apply(made.floating, made.module, given, made.names, technique.options)
        made.techniques.append(_said(technique, skipped))


def _said(technique: Chosen, skipped: Sequence[Any]) -> dict[str, Any]:
    return {**technique.to_dict(), "skipped": [list(item) for item in skipped]}
