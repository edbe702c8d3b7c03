"""What quantization did to a file, layer by layer: signal-to-noise ratios, clipping, the worst ones named."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lianzhi.deploy.session import Session
from lianzhi.quantize.affine import decibels, dequantize_symmetric, qparams, quantize_symmetric, sqnr
from lianzhi.quantize.batches import few
from lianzhi.quantize.observers import Statistics
from lianzhi.quantize.onnx_files.calibrate import Feeds, watched
from lianzhi.quantize.onnx_files.net import Net, label
from lianzhi.quantize.onnx_files.place import FilePlacement, tail, weight_axis
from lianzhi.quantize.onnx_files.tables import rounded_table
from lianzhi.quantize.report import REPORT_SAMPLES, WORST
from lianzhi.quantize.scheme import Schemes


def make_report(
    floating: Net,
    quantized: Any,
    placement: FilePlacement,
    ranges: dict[str, tuple[float, float]],
    seen: dict[str, Statistics],
    scales: dict[str, torch.Tensor],
    batches: list[Feeds],
    schemes: Schemes,
) -> dict[str, Any]:
    """As the report of `quantize`: one row an op with weights or a table, one row a quantized value."""
    layers = _layers(floating, quantized, placement, scales, few(batches, REPORT_SAMPLES), schemes)
    values = _values(ranges, seen, schemes)
    worst = sorted(layers, key=lambda row: row["output_sqnr_db"])[:WORST]
    return {
        "weights": str(schemes.weights or "float"),
        "activations": str(schemes.activations or "float"),
        "layers": layers,
        "values": values,
        "worst": [row["name"] for row in worst],
        "left_float": [{"name": name, "reason": reason} for name, reason in placement.left],
    }


def output_sqnr(floating: Session, other: Session, batches: list[Feeds]) -> float:
    """The ratio of all results of two sessions, in decibels; -200 where a result is not finite."""
    signal = noise = 0.0
    for batch in few(batches, REPORT_SAMPLES):
        for exact, rounded in zip(floating.run(batch), other.run(batch), strict=True):
            if exact.dtype.kind != "f":
                continue
            if not np.isfinite(rounded).all():
                return -200.0
            signal += float(np.square(exact.astype(np.float64)).sum())
            noise += float(np.square(exact.astype(np.float64) - rounded).sum())
    return decibels(signal, noise)


def _layers(
    floating: Net,
    quantized: Any,
    placement: FilePlacement,
    scales: dict[str, torch.Tensor],
    batches: list[Feeds],
    schemes: Schemes,
) -> list[dict[str, Any]]:
    """Its weight's ratio, and that of its output with all errors so far in it."""
    ends = [tail(floating, node.output[0]) for node in placement.weights]
    looked_up = [node.output[0] for node in placement.tables]
    powers = {name: [0.0, 0.0] for name in (*looked_up, *ends)}
    present = {name for node in quantized.graph.node for name in node.output}
    shown = [name for name in powers if name in present and floating.is_float(name)]
    with watched(floating.proto, shown) as exact_run, watched(quantized, shown) as rounded_run:
        for index, batch in enumerate(batches):
            pairs = zip(exact_run(batch, index), rounded_run(batch, index), strict=True)
            for (name, exact), (_, rounded) in pairs:
                powers[name][0] += float(exact.double().square().sum())
                powers[name][1] += float((exact.double() - rounded.double()).square().sum())
    scheme = schemes.weights
    assert scheme is not None
    rows = [
        {
            "name": label(node),
            "type": node.op_type,
            "weight_sqnr_db": sqnr(*rounded_table(floating, node.input[0])),
            "output_sqnr_db": decibels(*powers[node.output[0]]),
        }
        for node in placement.tables
    ]
    for node, end in zip(placement.weights, ends, strict=True):
        weight, scale = torch.from_numpy(np.array(floating.array(node.input[1]))), scales[node.input[1]]
        axis = weight_axis(floating, node)
        integers = quantize_symmetric(weight, scale, scheme.qmin, scheme.qmax, axis)
        rows.append(
            {
                "name": label(node),
                "type": node.op_type,
                "weight_sqnr_db": sqnr(weight, dequantize_symmetric(integers, scale, axis)),
                "output_sqnr_db": decibels(*powers[end]),
            }
        )
    return rows


def _values(
    ranges: dict[str, tuple[float, float]], seen: dict[str, Statistics], schemes: Schemes
) -> list[dict[str, Any]]:
    assert schemes.activations is not None
    rows = []
    for name, (low, high) in ranges.items():
        scale, zero_point = qparams(torch.tensor(low), torch.tensor(high), schemes.activations)
        facts = seen[name]
        total, outside = int(facts.counts.sum()), (facts.centres < low) | (facts.centres > high)
        rows.append(
            {
                "name": name,
                "scale": float(scale),
                "zero_point": int(zero_point),
                "low": low,
                "high": high,
                "seen": [facts.low, facts.high],
                "clipped": int(facts.counts[outside].sum()) / max(1, total),
            }
        )
    return rows
