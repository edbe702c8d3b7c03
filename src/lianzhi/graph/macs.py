"""Multiply-accumulates and a table of layers, from one capture.

Convolutions and matrix products count (linear, matmul, attention, the gates of recurrent layers); element-wise work
does not. The figure
is for one sample: the traced count divided by the traced batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from lianzhi.errors import GraphError
from lianzhi.graph.module import get_tensor
from lianzhi.graph.trace import Graph, shape_of

aten = torch.ops.aten

KINDS: dict[Any, str] = {
    aten.conv1d.default: "conv",
    aten.conv2d.default: "conv",
    aten.conv3d.default: "conv",
    aten.conv1d.padding: "conv",
    aten.conv2d.padding: "conv",
    aten.conv3d.padding: "conv",
    aten.convolution.default: "conv",
    aten.conv_transpose1d.default: "conv_transpose",
    aten.conv_transpose2d.input: "conv_transpose",
    aten.conv_transpose3d.input: "conv_transpose",
    aten.linear.default: "linear",
    aten.matmul.default: "matmul",
    aten.bmm.default: "matmul",
    aten.mm.default: "matmul",
    aten.addmm.default: "addmm",
    aten.baddbmm.default: "addmm",
    aten.scaled_dot_product_attention.default: "attention",
    aten.einsum.default: "einsum",
    aten.lstm.input: "recurrent",
    aten.gru.input: "recurrent",
    aten.rnn_tanh.input: "recurrent",
    aten.rnn_relu.input: "recurrent",
}


def node_macs(node: fx.Node, sizes: Callable[[fx.Node], Any] = shape_of) -> int:
    """Multiply-accumulates of one op for the traced batch; 0 for ops that are not products.

    `sizes` gives the shape of each value: the traced one, or what is left of it.
    """
    kind = KINDS.get(node.target)
    if kind is None:
        return 0
    if kind == "recurrent":
        return _recurrent_macs(node, sizes)
    output = sizes(node)
    shapes = [sizes(arg) if isinstance(arg, fx.Node) else None for arg in node.args]
    if output is None:
        return 0
    if kind == "conv":
        weight = shapes[1]
        assert weight is not None
        return math.prod(output) * math.prod(weight[1:])
    if kind == "conv_transpose":
        source, weight = shapes[0], shapes[1]
        assert source is not None
        assert weight is not None
        return math.prod(source) * math.prod(weight[1:])
    if kind == "attention":
        query, key, value = shapes[:3]
        assert query is not None
        assert key is not None
        assert value is not None
        rows = math.prod(query[:-1])
        return rows * key[-2] * (query[-1] + value[-1])
    if kind == "einsum":
        return _einsum_macs(node, sizes)
    left = shapes[1] if kind == "addmm" else shapes[0]
    assert left is not None
    return math.prod(output) * left[-1]


def _recurrent_macs(node: fx.Node, sizes: Callable[[fx.Node], Any]) -> int:
    """Each matrix of each layer and direction, once a step."""
    source = sizes(node.args[0])  # type: ignore[arg-type]
    weights = [sizes(weight) for weight in node.args[2]]  # type: ignore[union-attr, arg-type]
    return math.prod(source[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _einsum_macs(node: fx.Node, sizes: Callable[[fx.Node], Any]) -> int:
    """The product of all index extents of a two-operand einsum."""
    equation, operands = str(node.args[0]), node.args[1]
    extents: dict[str, int] = {}
    for letters, operand in zip(equation.partition("->")[0].split(","), operands, strict=False):  # type: ignore[arg-type]
        for letter, size in zip(letters.strip(), sizes(operand) or (), strict=False):  # type: ignore[arg-type]
            extents[letter] = size
    return math.prod(extents.values())


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one sample.

    >>> from lianzhi.graph import capture
    >>> macs(capture(torch.nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4)))
    3456
    """
    return sum(node_macs(node) for node in graph.nodes) // batch_of(graph)


def batch_of(graph: Graph) -> int:
    """The batch size that the graph was traced with."""
    for node in graph.nodes:
        if node.op == "placeholder":
            shape = shape_of(node)
            if shape:
                return shape[0]
    raise GraphError("the graph has no tensor input")


def layers(graph: Graph) -> list[dict[str, Any]]:
    """One dict for each op with weights: name, type, output shape of one sample, MACs, parameters."""
    batch = batch_of(graph)
    rows = []
    for node in graph.nodes:
        names = [
            str(arg.target)
            for arg in node.all_input_nodes
            if arg.op == "get_attr"
            and isinstance(get_tensor(graph.module, str(arg.target)), torch.nn.Parameter)
        ]
        if node.op != "call_function" or not names:
            continue
        shape = shape_of(node) or ()
        rows.append(
            {
                "name": names[0].rpartition(".")[0] or names[0],
                "type": str(node.target).split(".")[1],
                "shape": list(shape[1:]),
                "macs": node_macs(node) // batch,
                "parameters": sum(get_tensor(graph.module, name).numel() for name in dict.fromkeys(names)),
            }
        )
    return rows
