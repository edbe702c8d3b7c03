"""The rules of a target, said in ONNX's ops: what each ATen op of `quantize.placement` is in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lianzhi import deploy
from lianzhi.quantize import placement
from lianzhi.quantize.placement import ops
from lianzhi.quantize.placement.tensorrt import LEAST

CONVOLUTIONS = frozenset({"Conv"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
TRANSPOSED = frozenset({"ConvTranspose"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
CLAMPS = frozenset({"Relu", "Clip"})
GATES = frozenset({"Sigmoid", "HardSigmoid"})
SUM, CONCAT = "Add", "Concat"
# these keep the scale of what they move; what only changes shape or place has no ATen op of the same name
MOVES = frozenset(
    {
        "MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Gather",
        "DepthToSpace", "SpaceToDepth", "Split", "Identity", "Dropout", "Pad", "Resize",
    }
)  # fmt: skip
_ONNX: list[tuple[set[Any], frozenset[str]]] = [
    (ops.CONVOLUTIONS, CONVOLUTIONS),
    (ops.LINEAR, PRODUCTS),
    (ops.TRANSPOSED, TRANSPOSED),
    (ops.SUMS, frozenset({SUM})),
    (ops.PRODUCTS, frozenset({"Mul"})),
    (ops.CONCATS, frozenset({CONCAT})),
    (ops.AVERAGES, frozenset({"AveragePool"})),
    (ops.GLOBAL_AVERAGES, frozenset({"GlobalAveragePool"})),
]


@dataclass(frozen=True)
class OnnxRules:
    """A target's `Rules` for files, of the same names. `least`: sides below it are no faster in int8; 0: they are.

    `activates_in_float`: activations other than clamps are computed in float, with quantizers on both sides.
    `float_tables` says why every embedding table stays float, or is "".
    """

    weighted: frozenset[str]
    output_of: frozenset[str]
    elementwise: frozenset[str]
    moves: frozenset[str]
    adds_inside: bool
    adds_outside: bool
    concats_share: bool
    least: int
    activates_in_float: bool
    float_tables: str


def rules_for(target: str) -> OnnxRules:
    """The rules that a target has for captured modules, in ONNX's ops.

    >>> sorted(rules_for("openvino").elementwise), sorted(rules_for("tensorrt").elementwise)
    (['Add', 'AveragePool', 'Concat', 'GlobalAveragePool', 'Mul'], ['Add', 'Concat'])
    """
    rules = placement.rules_of(target)

    def names(kinds: frozenset[Any]) -> frozenset[str]:
        return frozenset(name for aten, onnx in _ONNX if aten & kinds for name in onnx)

    return OnnxRules(
        weighted=names(rules.weighted),
        output_of=names(rules.output_of),
        elementwise=names(rules.elementwise),
        moves=MOVES if rules.moves else frozenset(),
        adds_inside=rules.adds_inside,
        adds_outside=rules.adds_outside,
        concats_share=rules.concats_share,
        least=LEAST if rules.obstacle is not None else 0,
        activates_in_float=deploy.quantized_like(target) == "onnxruntime",
        float_tables=rules.float_tables,
    )
