"""The rules of a target, said in ONNX's ops: what each ATen op of `quantize.placement` is in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lianzhi.quantize import placement
from lianzhi.quantize.placement import ops

CONVOLUTIONS = frozenset({"Conv"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
TRANSPOSED = frozenset({"ConvTranspose"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
CLAMPS = frozenset({"Relu", "Clip"})
SUM = "Add"
# these keep the scale of what they move; what only changes shape or place has no ATen op of the same name
MOVES = frozenset(
    {
        "MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Gather",
        "DepthToSpace", "SpaceToDepth", "Split", "Identity", "Dropout",
    }
)  # fmt: skip
_ONNX: list[tuple[set[Any], frozenset[str]]] = [
    (ops.CONVOLUTIONS, CONVOLUTIONS),
    (ops.LINEAR, PRODUCTS),
    (ops.TRANSPOSED, TRANSPOSED),
    (ops.SUMS, frozenset({SUM})),
    (ops.PRODUCTS, frozenset({"Mul"})),
    (ops.CONCATS, frozenset({"Concat"})),
    (ops.AVERAGES, frozenset({"AveragePool"})),
    (ops.GLOBAL_AVERAGES, frozenset({"GlobalAveragePool"})),
]


@dataclass(frozen=True)
class OnnxRules:
    """A target's `Rules` for files. `shared`: whoever reads a quantized value reads it quantized."""

    weighted: frozenset[str]
    output_of: frozenset[str]
    elementwise: frozenset[str]
    adds_inside: bool
    shared: bool


def rules_for(target: str) -> OnnxRules:
    """The rules that a target has for captured modules, in ONNX's ops.

    >>> sorted(rules_for("openvino").elementwise)
    ['Add', 'AveragePool', 'Concat', 'GlobalAveragePool', 'Mul']
    """
    rules = placement.RULES[target]

    def names(kinds: frozenset[Any]) -> frozenset[str]:
        return frozenset(name for aten, onnx in _ONNX if aten & kinds for name in onnx)

    return OnnxRules(
        weighted=names(rules.weighted),
        output_of=names(rules.output_of),
        elementwise=names(rules.elementwise),
        adds_inside=rules.adds_inside,
        shared=target != "tensorrt",
    )
