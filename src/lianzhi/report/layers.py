"""What a report knows of each layer: channels, MACs, bytes in a packed file, and the noise of quantization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lianzhi.report import format, weights
from lianzhi.report.data import Report
from lianzhi.report.format import known

Values = dict[
    str, tuple[float, float | None]
]  # of a layer: what it is now, and what it was (None: not known)


@dataclass(frozen=True)
class Quantity:
    """Something that layers have: its name among the page's words, how it is found, and how it is written."""

    key: str
    find: Callable[[Report], Values]
    write: Callable[[float], str]


def _channels(report: Report) -> Values:
    return {
        layer["name"]: (layer["after"], layer["before"])
        for layer in report.layers
        if layer.get("before") and layer.get("after") is not None
    }


def _macs(report: Report) -> Values:
    return {
        layer["name"]: (layer["macs"], layer.get("macs_before"))
        for layer in report.layers
        if layer.get("macs") is not None
    }


def _bytes(report: Report) -> Values:
    """Bytes in a packed file after the last step that says them, and as float32."""
    found = weights.packed_layers(report)
    return {
        name.removesuffix(".weight"): (layer["bytes"], weights.FLOAT * layer["weights"])
        for name, layer in found.items()
    }


def _quantized(report: Report) -> Mapping[str, Any]:
    """The quantization of what ships; that of the first runtime if nothing was decided; empty if there is none."""
    for row in reversed(report.rows):
        found = row["details"].get("quantization")
        if isinstance(found, dict) and found:
            chosen = found.get(report.decision.get("runtime") or row["runtime"])
            chosen = next(iter(found.values())) if chosen is None else chosen
            return chosen if isinstance(chosen, dict) else {}
    return {}


def _ratios(key: str) -> Callable[[Report], Values]:
    def find(report: Report) -> Values:
        layers = _quantized(report).get("layers")
        return {
            str(layer["name"]): (layer[key], None)
            for layer in (layers if isinstance(layers, list) else [])
            if isinstance(layer, dict)
            and "name" in layer
            and weights.number(layer.get(key))
            and known(layer[key])
        }

    return find


def decibels(value: float) -> str:
    """Write a signal-to-noise ratio.

    >>> decibels(43.71)
    '43.7 dB'
    """
    return f"{value:.1f} dB"


def channels(value: float) -> str:
    """Write a number of channels."""
    return f"{value:,.0f}"


QUANTITIES = (
    Quantity("channels", _channels, channels),
    Quantity("macs", _macs, format.count),
    Quantity("packed_bytes", _bytes, format.size),
    Quantity("weight_sqnr", _ratios("weight_sqnr_db"), decibels),
    Quantity("output_sqnr", _ratios("output_sqnr_db"), decibels),
)
