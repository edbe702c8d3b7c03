"""What quantization did, layer by layer: signal-to-noise ratios, clipping, and the worst ones named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_GROUPS, FAKE_TENSOR, decibels, sqnr
from lianzhi.quantize.batches import few, parts
from lianzhi.quantize.calibrate import first, watch
from lianzhi.quantize.placement import Placement, layer_name, tail, weight_node
from lianzhi.quantize.ptq.walk import evaluate
from lianzhi.quantize.ranges import Ranges
from lianzhi.quantize.scheme import Schemes
from lianzhi.quantize.tables import looked_up, rounded_table

WORST = 10
REPORT_SAMPLES = 32


def make_report(
    floating: TracedModule,
    quantized: TracedModule,
    placement: Placement,
    ranges: Ranges,
    batches: list[Any],
    schemes: Schemes,
    *,
    divisible: bool = False,
) -> dict[str, Any]:
    """The report as JSON-ready values; the ratios are measured on some of the calibration data.

    `divisible`: a batch may be run in parts.
    """
    chosen = few(batches, REPORT_SAMPLES, divisible=divisible)
    pieces = [part for batch in chosen for part in parts(floating, batch, divisible=divisible)]
    activations = _Activations(quantized, ranges.bounds)
    layers, output = _layers(floating, quantized, placement, pieces, activations)
    values = activations.rows(placement, ranges) if placement.values else []
    worst = sorted(layers, key=lambda row: ratio(row, "output_sqnr_db"))[:WORST]
    return {
        "weights": str(schemes.weights or "float"),
        "activations": str(schemes.activations or "float"),
        "layers": layers,
        "values": values,
        "worst": [row["name"] for row in worst],
        "worst_values": [
            row["name"] for row in sorted(values, key=lambda row: ratio(row, "sqnr_db"))[:WORST]
        ],
        "left_float": [{"name": name, "reason": reason} for name, reason in placement.left],
        "output_sqnr_db": output,
    }


def group_notes(module: TracedModule, names: list[str], schemes: Schemes) -> list[str]:
    """Which layers have one scale an output channel although the scheme has groups."""
    size = schemes.weights.group_size if schemes.weights is not None else 0
    if not size:
        return []
    nodes = [node for node in module.graph.nodes if node.name in names]
    whole = [layer_name(node) for node in nodes if node.args[1].target is not FAKE_GROUPS]  # type: ignore[union-attr]
    reason = f"they are no linear layers, or their inputs are no multiple of {size}"
    return [f"one scale an output channel instead of groups: {', '.join(whole)} ({reason})"] if whole else []


def table_notes(placement: Placement, weights: str, choices: Mapping[str, str]) -> list[str]:
    """Which tables are int8 where weights are int4."""
    if not placement.tables or not (weights == "int4" or "int4" in choices.values()):
        return []
    names = dict.fromkeys(layer_name(node) for node in placement.tables)
    return [f"embedding tables are int8, not int4: {', '.join(names)} (no runtime looks rows of int4 up)"]


def _layers(
    floating: TracedModule,
    quantized: TracedModule,
    placement: Placement,
    batches: list[Any],
    activations: _Activations,
) -> tuple[list[dict[str, Any]], float | None]:
    """One row an op with weights or a table: its weight's ratio, and that of its output with all errors so far in it.

    Both graphs run once a batch; the activations are looked at on the way. Also the ratio of the model's first output.
    """
    names = {node.name: layer_name(node) for node in (*placement.tables, *placement.weights)}
    ends = {tail(node).name: node.name for node in placement.weights}
    ends |= {node.name: node.name for node in placement.tables} | {"output": "output"}
    expected: dict[str, Tensor] = {}
    powers: dict[str, list[float]] = {name: [0.0, 0.0] for name in ends.values()}

    def keep(node: fx.Node, values: Any) -> None:
        expected[_key(node)] = first(values)

    def compare(node: fx.Node, values: Any) -> None:
        key = _key(node)
        if key in ends:
            exact, total = expected.pop(key), powers[ends[key]]
            total[0] += power(exact)
            total[1] += power(exact - first(values))
        activations.visit(node, values)

    before = [node for node in floating.graph.nodes if _key(node) in ends]
    wanted = ends.keys() | activations.names
    after = [node for node in quantized.graph.nodes if _key(node) in wanted]
    for batch in batches:
        watch(floating, before, [batch], keep)
        watch(quantized, after, [batch], compare)
    rows = []
    originals = {node.name: node for node in floating.graph.nodes if node.name in names}
    for node in quantized.graph.nodes:
        if node.name in names:
            original = originals[node.name]
            exact = get_tensor(floating, str(weight_node(original).target)).detach()
            by_row = looked_up(node) is not None
            rounded = rounded_table(quantized, node) if by_row else evaluate(quantized, weight_node(node))
            rows.append(
                {
                    "name": names[node.name],
                    "type": str(original.target).split(".")[1],
                    "weight_sqnr_db": sqnr(exact, rounded),
                    "output_sqnr_db": decibels(*powers[node.name]) if batches else None,
                }
            )
    return rows, decibels(*powers["output"]) if batches else None


def _key(node: fx.Node) -> str:
    return "output" if node.op == "output" else node.name


def power(values: Tensor) -> float:
    """The sum of squares.

    >>> power(torch.tensor([3.0, 4.0]))
    25.0
    """
    flat = values.detach().reshape(-1).float()
    total = float(torch.dot(flat, flat))
    return total if math.isfinite(total) else float(flat.double().square().sum())


class _Activations:
    """What each quantizer does to the values it is given: noise, and the share that is clipped."""

    def __init__(self, module: TracedModule, bounds: dict[fx.Node, tuple[float, float]]) -> None:
        self.module = module
        self.bounds = {node.name: found for node, found in bounds.items()}
        self.quantizers = {
            node.args[0].name: node  # type: ignore[union-attr]
            for node in module.graph.nodes
            if node.target is FAKE_TENSOR
        }
        self.waiting: dict[str, Tensor] = {}
        self.powers: dict[str, list[float]] = {}
        self.clipped: dict[str, list[int]] = {}

    @property
    def names(self) -> set[str]:
        """The nodes to look at: what is quantized, and the quantizers."""
        return self.bounds.keys() | {self.quantizers[name].name for name in self.bounds}

    def visit(self, node: fx.Node, values: Tensor) -> None:
        """Look at a result: keep what is quantized until its quantizer has run, then add what that did."""
        if node.name in self.bounds:
            self.waiting[node.name] = values
        elif node.target is FAKE_TENSOR and node.args[0].name in self.waiting:  # type: ignore[union-attr]
            name = node.args[0].name  # type: ignore[union-attr]
            self._add(name, self.waiting.pop(name), values)

    def _add(self, name: str, values: Tensor, rounded: Tensor) -> None:
        total = self.powers.setdefault(name, [0.0, 0.0])
        total[0] += power(values)
        total[1] += power(values - rounded)
        low, high = self.bounds[name]
        least, most = (float(bound) for bound in values.aminmax())
        outside = int(torch.count_nonzero(values < low)) if least < low else 0
        outside += int(torch.count_nonzero(values > high)) if most > high else 0
        counts = self.clipped.setdefault(name, [0, 0])
        counts[0], counts[1] = counts[0] + outside, counts[1] + values.numel()

    def rows(self, placement: Placement, ranges: Ranges) -> list[dict[str, Any]]:
        """One row a quantizer: its grid, the range that was seen, the share that is clipped, its own ratio."""

        def held(node: fx.Node, position: int) -> Tensor:
            return get_tensor(self.module, str(self.quantizers[node.name].args[position].target))  # type: ignore[union-attr]

        return [
            {
                "name": node.name,
                "scale": float(held(node, 1)),
                "zero_point": int(held(node, 2)),
                "low": ranges.bounds[node][0],
                "high": ranges.bounds[node][1],
                "seen": [ranges.seen[node].low, ranges.seen[node].high]
                if node in ranges.seen
                else list(ranges.bounds[node]),
                "clipped": self.clipped[node.name][0] / max(1, self.clipped[node.name][1])
                if node.name in self.clipped
                else None,
                "sqnr_db": decibels(*self.powers[node.name]) if node.name in self.powers else None,
            }
            for node in placement.values
            if node not in placement.shares
        ]


def ratio(row: dict[str, Any], key: str) -> float:
    """A ratio of a row, to sort by; one that was not measured comes last.

    >>> ratio({"sqnr_db": None}, "sqnr_db")
    inf
    """
    return math.inf if row[key] is None else row[key]


def text(report: dict[str, Any]) -> str:
    """The report as a printed table."""
    names = [item["name"] for item in report["techniques"]]
    head = [
        f"for {report['target']}: weights {report['weights']}, activations {report['activations']}"
        + (f"; {', '.join(names)}" if names else ""),
        f"{len(report['layers'])} layers quantized, {len(report['left_float'])} left float; "
        f"{report['calibration']['samples']} calibration samples, observer {report['observer']['name']}; "
        f"output SQNR {_shown(report['output_sqnr_db'])} dB",
    ]
    rows = sorted(report["layers"], key=lambda row: ratio(row, "output_sqnr_db"))[:WORST]
    width = max((len(row["name"]) for row in rows), default=5)
    lines = [f"{'worst layers':<{width}}  {'weight dB':>10}  {'output dB':>10}"] if rows else []
    lines += [
        f"{row['name']:<{width}}  {row['weight_sqnr_db']:>10.1f}  {_shown(row['output_sqnr_db']):>10}"
        for row in rows
    ]
    lines += [f"left float: {row['name']} ({row['reason']})" for row in report["left_float"]]
    return "\n".join([*head, *lines, *(f"note: {note}" for note in report["notes"])])


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f}"
