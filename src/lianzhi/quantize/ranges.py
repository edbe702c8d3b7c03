"""The range of every quantized value: observed on calibration data, or read from a calibration table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from lianzhi.errors import RecipeError
from lianzhi.graph import TracedModule, fingerprint
from lianzhi.quantize import table
from lianzhi.quantize.batches import samples
from lianzhi.quantize.calibrate import observe, ranges_of
from lianzhi.quantize.observers import Statistics, registry
from lianzhi.quantize.placement import Placement
from lianzhi.quantize.ptq import Chosen
from lianzhi.quantize.scheme import Scheme

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """The range of every root of a placement, the statistics behind them, and what goes into a table."""

    bounds: dict[fx.Node, Bounds] = field(default_factory=dict)
    seen: dict[fx.Node, Statistics] = field(default_factory=dict)
    table: table.CalibrationTable | None = None


def find(
    module: TracedModule,
    placement: Placement,
    batches: list[Any],
    scheme: Scheme,
    *,
    model: nn.Module,
    target: str,
    observer: str,
    options: Any,
    rewriting: list[Chosen],
    path: table.Given | None = None,
    divisible: bool = False,
) -> Ranges:
    """Observe the batches, or take the table, or the one at `path`, which must be of this model, target and data.

    `divisible`: a batch may be run in parts.
    """
    techniques = [item.to_dict() for item in rewriting]
    roots = [node for node in placement.values if node not in placement.shares]
    if path is not None:
        held = path if isinstance(path, table.CalibrationTable) else table.CalibrationTable.read(path)
        held.check(
            table.shown(path),
            target=target,
            techniques=techniques,
            model=fingerprint(model),
            data=table.of_data(batches) if batches else None,
            names=[node.name for node in roots],
        )
        return Ranges({node: held.ranges[node.name] for node in roots}, {}, held)
    together = {node for group in placement.groups for node in group}
    observed = [node for node in placement.values if node in together or node not in placement.shares]
    seen = observe(module, observed, batches, histogram=options.histogram, divisible=divisible)
    bounds = _joined(ranges_of(seen, scheme, observer, options), placement)
    made = table.CalibrationTable(
        target=target,
        observer={"name": observer, **options.to_dict()},
        techniques=techniques,
        model=fingerprint(model),
        data=table.of_data(batches),
        samples=samples(batches),
        ranges={node.name: bounds[node] for node in roots},
    )
    return Ranges(bounds, {node: seen[node] for node in roots}, made)


def options_of(observer: str, given: dict[str, Any] | None) -> Any:
    """An observer's options, checked."""
    entry = registry.get(observer)
    if given is not None and not isinstance(given, dict):
        raise RecipeError(f"observer_options: {given!r:.60} is not a mapping of options to values")
    return entry.options(**(given or {}))


def _joined(bounds: dict[fx.Node, Bounds], placement: Placement) -> dict[fx.Node, Bounds]:
    """Values of one scale have a range that holds that of each."""
    for group in placement.groups:
        low, high = zip(*(bounds.pop(node) for node in group), strict=True)
        bounds[group[0]] = (min(low), max(high))
    return bounds
