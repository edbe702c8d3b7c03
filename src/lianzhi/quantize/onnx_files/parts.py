"""Which part of a file is quantized: all of it, or what is left where int8 is slower; and the reasons in words."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Sequence
from typing import Any

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.quantize.onnx_files.net import label
from lianzhi.quantize.onnx_files.ops import CONVOLUTIONS, PRODUCTS, TRANSPOSED
from lianzhi.quantize.onnx_files.tables import GATHER

# what is tried, in order, where int8 turns out slower than float
PARTS: dict[str, frozenset[str]] = {
    "all layers": CONVOLUTIONS | TRANSPOSED | PRODUCTS,
    "the convolutions": CONVOLUTIONS | TRANSPOSED,
    "the matrix products": PRODUCTS,
}
FLOAT = "none"


def skipper(
    ops: frozenset[str], ignore: Sequence[str], returned: Collection[str] = ()
) -> Callable[[Any], str]:
    """Why a node stays float in this attempt, or ""."""

    def skipped(node: Any) -> str:
        if any(fnmatch.fnmatchcase(label(node), pattern) for pattern in ignore):
            return "ignored, as asked"
        if label(node) in returned:
            return "accuracy control"
        held = node.op_type in ops or (ops and node.op_type == GATHER)
        return "" if held else "int8 with it was slower than float"

    return skipped


def check_ignored(model: Any, patterns: Sequence[str]) -> None:
    names = [label(node) for node in model.graph.node]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            layers = [label(node) for node in model.graph.node if node.op_type in PARTS["all layers"]]
            raise RecipeError(f"ignore: '{pattern}' matches no node{did_you_mean(pattern, layers)}")


def nothing(reason: str, left: list[dict[str, str]]) -> dict[str, Any]:
    """The report of a file that is written as it came."""
    return {
        "quantized": FLOAT, "worth_it": False, "reason": reason, "weights": "float", "activations": "float",
        "layers": [], "values": [], "worst": [], "left_float": left, "lint": [], "notes": [],
    }  # fmt: skip


def slow(attempts: list[dict[str, Any]], target: str) -> str:
    timed = [item for item in attempts if "ratio" in item]
    refused = [item["reason"] for item in attempts if target in item.get("reason", "")]
    if not timed:
        return refused[0] if refused else "no layer of the main graph can be quantized; see left_float"
    tries = ", ".join(f"{item['quantized']} {item['ratio']:.2f}x" for item in timed)
    return (
        f"int8 is slower than float on {target} (time over that of float: {tries}), so the float file is kept"
    )


def rows(left: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "reason": reason} for name, reason in left]
