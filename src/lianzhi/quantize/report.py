"""What quantization did, layer by layer: signal-to-noise ratios, clipping, and the worst ones named."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_GROUPS, FAKE_TENSOR, decibels, sqnr
from lianzhi.quantize.calibrate import watch
from lianzhi.quantize.observers import Statistics
from lianzhi.quantize.placement import Placement, layer_name, tail
from lianzhi.quantize.ptq.walk import evaluate
from lianzhi.quantize.scheme import Schemes

WORST = 10
REPORT_SAMPLES = 64


def make_report(
    floating: TracedModule,
    quantized: TracedModule,
    placement: Placement,
    ranges: dict[fx.Node, tuple[float, float]],
    seen: dict[fx.Node, Statistics],
    batches: list[Any],
    schemes: Schemes,
) -> dict[str, Any]:
    """The report as JSON-ready values; the ratios are measured on some of the calibration data."""
    few = _few(batches)
    layers = _layers(floating, quantized, placement, few)
    values = _activations(quantized, placement, ranges, seen, few)
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
        "output_sqnr_db": _output_sqnr(floating, quantized, few),
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


def _few(batches: list[Any]) -> list[Any]:
    """The first batches, about 64 samples."""
    chosen, count = [], 0
    for batch in batches:
        chosen.append(batch)
        count += int(batch[0].shape[0]) if batch[0].dim() else 1
        if count >= REPORT_SAMPLES:
            break
    return chosen


def _layers(
    floating: TracedModule, quantized: TracedModule, placement: Placement, batches: list[Any]
) -> list[dict[str, Any]]:
    """One row an op with weights: its weight's ratio, and that of its output with all errors so far in it."""
    names = {node.name: layer_name(node) for node in placement.weights}
    ends = {tail(node).name: node.name for node in placement.weights}
    expected: dict[str, list[Tensor]] = {}
    powers: dict[str, list[float]] = {name: [0.0, 0.0] for name in names}

    def keep(node: fx.Node, values: Tensor) -> None:
        expected.setdefault(node.name, []).append(values)

    def compare(node: fx.Node, values: Tensor) -> None:
        exact = expected[node.name].pop(0).double()
        total = powers[ends[node.name]]
        total[0] += float(exact.square().sum())
        total[1] += float((exact - values.double()).square().sum())

    for batch in batches:
        watch(floating, [node for node in floating.graph.nodes if node.name in ends], [batch], keep)
        watch(quantized, [node for node in quantized.graph.nodes if node.name in ends], [batch], compare)
    rows = []
    originals = {node.name: node for node in floating.graph.nodes if node.name in names}
    for node in quantized.graph.nodes:
        if node.name in names:
            exact = get_tensor(floating, str(originals[node.name].args[1].target)).detach()  # type: ignore[union-attr]
            rows.append(
                {
                    "name": names[node.name],
                    "type": str(node.target).split(".")[1],
                    "weight_sqnr_db": sqnr(exact, evaluate(quantized, node.args[1])),
                    "output_sqnr_db": decibels(*powers[node.name]) if batches else None,
                }
            )
    return rows


def _activations(
    module: TracedModule,
    placement: Placement,
    ranges: dict[fx.Node, tuple[float, float]],
    seen: dict[fx.Node, Statistics],
    batches: list[Any],
) -> list[dict[str, Any]]:
    """One row a quantizer: its grid, the range that was seen, the share that is clipped, its own ratio."""
    powers: dict[str, list[float]] = {}
    clipped: dict[str, list[int]] = {}
    quantizers = {node.args[0].name: node for node in module.graph.nodes if node.target is FAKE_TENSOR}  # type: ignore[union-attr]
    low_high = {node.name: bounds for node, bounds in ranges.items()}

    def visit(node: fx.Node, values: Tensor) -> None:
        scale, zero_point, qmin, qmax = quantizers[node.name].args[1:5]
        grid = [get_tensor(module, str(item.target)) for item in (scale, zero_point)]  # type: ignore[union-attr]
        rounded = FAKE_TENSOR(values, *grid, qmin, qmax)
        total = powers.setdefault(node.name, [0.0, 0.0])
        total[0] += float(values.double().square().sum())
        total[1] += float((values.double() - rounded.double()).square().sum())
        low, high = low_high[node.name]
        outside = int(((values < low) | (values > high)).sum())
        counts = clipped.setdefault(node.name, [0, 0])
        counts[0], counts[1] = counts[0] + outside, counts[1] + values.numel()

    watch(module, [node for node in module.graph.nodes if node.name in low_high], batches, visit)
    return [
        {
            "name": node.name,
            "scale": float(get_tensor(module, str(quantizers[node.name].args[1].target))),  # type: ignore[union-attr]
            "zero_point": int(get_tensor(module, str(quantizers[node.name].args[2].target))),  # type: ignore[union-attr]
            "low": ranges[node][0],
            "high": ranges[node][1],
            "seen": [seen[node].low, seen[node].high] if node in seen else list(ranges[node]),
            "clipped": clipped[node.name][0] / max(1, clipped[node.name][1]) if batches else None,
            "sqnr_db": decibels(*powers[node.name]) if batches else None,
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


def _output_sqnr(floating: TracedModule, quantized: TracedModule, batches: list[Any]) -> float | None:
    """The ratio of the model's first output; None without data."""
    if not batches:
        return None
    signal = noise = 0.0
    with torch.no_grad():
        for batch in batches:
            exact, rounded = (_first(_run(module, batch)).double() for module in (floating, quantized))
            signal += float(exact.square().sum())
            noise += float((exact - rounded).square().sum())
    return decibels(signal, noise)


def _run(module: TracedModule, batch: list[Any]) -> Any:
    return fx.Interpreter(module).run(*batch)


def _first(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value


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
