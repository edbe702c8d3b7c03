"""Where quantizers go in a file: the rules of `quantize.placement`, on ONNX's ops.

The graph is walked from its outputs to its inputs. An op with weights wants its input quantized; an
element-wise op is computed in integers if somebody after it wants its result; ops that move values keep the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lianzhi.quantize.onnx_files.net import Net, attribute, label, subgraphs
from lianzhi.quantize.onnx_files.ops import (
    CLAMPS,
    CONCAT,
    CONVOLUTIONS,
    GATES,
    PRODUCTS,
    RECURRENT,
    SUM,
    TRANSPOSED,
)
from lianzhi.quantize.onnx_files.ops import OnnxRules as Rules
from lianzhi.quantize.onnx_files.tables import place_tables


@dataclass
class FilePlacement:
    """`values`: names that get a quantizer, in order; `shares`: which take the scale of which.

    `groups`: values whose one scale, that of the first, holds the range of each. `weights`: nodes whose weight is
    quantized, `tables` those that look up rows of a quantized table; `left`: nodes that stay float, with the reason.
    """

    values: list[str] = field(default_factory=list)
    shares: dict[str, str] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def roots(self) -> list[str]:
        """The values whose range is observed."""
        together = {name for group in self.groups for name in group}
        return [name for name in self.values if name in together or name not in self.shares]


def place(net: Net, rules: Rules, skipped: Callable[[Any], str]) -> FilePlacement:
    """Apply a target's rules; `skipped` gives the reason why an op with weights is to stay float, or ""."""
    result = FilePlacement()
    wanted: set[str] = set()
    together: list[list[str]] = []
    for node in reversed(net.nodes):
        reason = _never(node, rules)
        if reason:
            result.left.append((label(node), reason))
        elif node.op_type in rules.weighted:
            reason = _obstacle(net, node) or skipped(node) or too_small(net, node, rules.least)
            reason = reason or between_floats(net, node, rules)
            if reason:
                result.left.append((label(node), reason))
                continue
            result.weights.append(node)
            wanted.add(node.input[0])
            if node.op_type in rules.output_of:
                wanted.add(tail(net, node.output[0]))
        elif node.op_type in rules.elementwise and tail(net, node.output[0]) in wanted:
            operands = _operands(net, node)
            inside = _added_inside(net, node, operands) if rules.adds_inside else None
            if node.op_type == SUM and inside is None and not rules.adds_outside:
                continue
            wanted.update(name for name in operands if name != inside)
            if rules.concats_share and node.op_type == CONCAT:
                together.append([tail(net, node.output[0]), *operands])
        elif moves(net, node, rules) and any(name in wanted for name in node.output):
            wanted.add(node.input[0])
    result.weights.reverse()
    result.left.reverse()
    result.tables, left = place_tables(net, skipped, rules.float_tables)
    result.left += left
    _collect(net, rules, wanted, result)
    _share(result, together)
    return result


def tail(net: Net, name: str) -> str:
    """The value that leaves a kernel: the result of the clamp that alone reads it, or itself."""
    if not net.read_once(name):
        return name
    clamp = net.readers[name][0]
    bounded = clamp.input[0] == name and not any(net.computed(bound) for bound in clamp.input[1:])
    return str(clamp.output[0]) if clamp.op_type in CLAMPS and bounded else name


def weight_axis(net: Net, node: Any) -> int:
    """The axis of the weight that holds the output channels."""
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return 0 if node.op_type == "Conv" or transposed else 1


def _collect(net: Net, rules: Rules, wanted: set[str], result: FilePlacement) -> None:
    taken: set[str] = set()
    order = [*net.inputs, *(name for node in net.nodes for name in node.output)]
    for name in order:
        if name not in wanted or not net.is_float(name):
            continue
        maker = net.makers.get(name)
        if maker is not None and moves(net, maker, rules) and maker.input[0] in taken:
            result.shares[name] = result.shares.get(maker.input[0], maker.input[0])
        taken.add(name)
        result.values.append(name)


def _share(result: FilePlacement, together: list[list[str]]) -> None:
    """Give sets of values that overlap one scale."""
    merged: list[set[str]] = []
    for names in together:
        new = {result.shares.get(name, name) for name in names if name in result.values}
        apart = [group for group in merged if not group & new]
        merged = [*apart, new.union(*(group for group in merged if group & new))]
    for group in merged:
        ordered = [name for name in result.values if name in group]
        if len(ordered) > 1:
            result.groups.append(ordered)
            result.shares |= dict.fromkeys(ordered[1:], ordered[0])
            moved = [name for name, root in result.shares.items() if root in group and name != ordered[0]]
            result.shares |= dict.fromkeys(moved, ordered[0])


def too_small(net: Net, node: Any, least: int) -> str:
    """Why a layer is no faster in int8 on a target that wants sides of at least `least`, or ""."""
    weight = net.array(node.input[1])
    if not least or weight is None:
        return ""
    if node.op_type in PRODUCTS:
        if min(weight.shape) < least:
            return f"a product with a side below {least} ({' by '.join(map(str, weight.shape))}) is no faster in int8"
        if node.op_type == "Gemm" or net.ranks.get(node.output[0]) == 2:
            return "at batch 1 it is a product of a matrix and a vector, which is no faster in int8"
        return ""
    groups = attribute(node, "group", 1)
    sides = weight.shape[0], weight.shape[1] * groups
    if node.input[0] not in net.inputs and min(sides) < least:
        return f"a convolution of fewer than {least} channels ({sides[1]} to {sides[0]}) is no faster in int8"
    return ""


def between_floats(net: Net, node: Any, rules: Rules) -> str:
    """Why a depthwise convolution is no faster in int8 where what stands on both sides computes in float, or "".

    It costs no more than the two quantizers that it would have to itself.
    """
    if node.op_type not in CONVOLUTIONS or attribute(node, "group", 1) == 1 or not rules.activates_in_float:
        return ""
    maker = net.makers.get(node.input[0])
    readers = net.readers.get(tail(net, node.output[0]), [])
    sides = [maker, *readers] if maker is not None and readers else []
    if net.array(node.input[1]).shape[1] != 1 or not sides:  # type: ignore[union-attr]
        return ""
    if any(_in_integers(net, side, rules) for side in sides):
        return ""
    return "a depthwise convolution between activations that compute in float is no faster in int8"


def _in_integers(net: Net, node: Any, rules: Rules) -> bool:
    """Whether an op may compute in integers, or hand on those of another."""
    if node.op_type in rules.weighted | CLAMPS or moves(net, node, rules):
        return True
    return node.op_type in rules.elementwise and bool(_operands(net, node))


def _never(node: Any, rules: Rules) -> str:
    """Why an op that holds weights has no integer kernel, or ""."""
    if node.op_type in TRANSPOSED and node.op_type not in rules.weighted:
        return "the target has no integer kernel for transposed convolutions"
    if node.op_type in RECURRENT:
        return "the target has no integer kernel for recurrent layers"
    inner = [child.op_type for graph in subgraphs(node) for child in graph.node]
    held = sum(kind in CONVOLUTIONS | PRODUCTS | TRANSPOSED | RECURRENT for kind in inner)
    return f"its branches hold {held} layers; only the main graph is quantized" if held else ""


def _obstacle(net: Net, node: Any) -> str:
    weight = net.array(node.input[1])
    maker = net.makers.get(node.input[1])
    if maker is not None and maker.op_type == "Cast" and not net.computed(maker.input[0]):
        return "its weight is not float32; give the file as it was before it was converted"
    if weight is None:
        return "its weight is computed, not a constant"
    if weight.dtype != "float32" or not net.is_float(node.input[0]):
        return "its weight or input is not float32"
    if not net.computed(node.input[0]):
        return "its input is a constant"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions, and the integer kernels take 2"
    if node.op_type == "Gemm":
        scaled = attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
        if scaled or attribute(node, "transA", 0):
            return "it is a Gemm with alpha, beta or transA, which the integer kernels have not"
    if not weight.size:
        return "its weight is empty"
    return ""


def _operands(net: Net, node: Any) -> list[str]:
    """The inputs of an element-wise op; none if one of them is a constant or is not float32."""
    names = list(node.input)
    if node.op_type == "Mul" and _gates_itself(net, names):
        return []
    return names if all(net.computed(name) and net.is_float(name) for name in names) else []


def _gates_itself(net: Net, names: list[str]) -> bool:
    """Whether a product is an activation (SiLU, hard swish): a value times a sigmoid of itself."""
    makers = [(net.makers.get(name), other) for name, other in (names, names[::-1])]
    return any(
        maker is not None and maker.op_type in GATES and maker.input[0] == other for maker, other in makers
    )


def _added_inside(net: Net, node: Any, operands: list[str]) -> str | None:
    """The convolution that takes a sum into its kernel: the last one to run of those that nothing else reads."""
    if node.op_type != SUM:
        return None
    alone = [
        name
        for name in operands
        if name in net.makers and net.makers[name].op_type in CONVOLUTIONS and net.read_once(name)
    ]
    order = {id(item): index for index, item in enumerate(net.nodes)}
    return max(alone, key=lambda name: order[id(net.makers[name])]) if alone else None


def moves(net: Net, node: Any, rules: Rules) -> bool:
    """Whether the output of an op holds values of its first input and nothing else."""
    if node.op_type not in rules.moves or not node.input or not net.computed(node.input[0]):
        return False
    if node.op_type == "Pad":
        written = len(node.input) > 2 and bool(node.input[2])
        value = net.array(node.input[2]) if written else None
        constant = attribute(node, "mode", b"constant") == b"constant"
        return not constant or not written or (value is not None and not value.any())
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", b"nearest") == b"nearest")
    return node.op_type != "MaxPool" or len(node.output) == 1
