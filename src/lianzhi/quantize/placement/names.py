"""What an op of a graph is called, where its weight is, and what it gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from lianzhi.quantize.placement import ops


def weight_node(node: fx.Node) -> Any:
    """The argument that holds an op's weight: the table of a look-up, a recurrent layer's first, of others the second."""
    if node.target in ops.TABLES:
        return node.args[0]
    if node.target in ops.RECURRENT:
        return node.args[2][0]  # type: ignore[index]
    return node.args[1] if len(node.args) > 1 else None


def layer_name(node: fx.Node) -> str:
    """The module that an op with weights belongs to; else the op's own name in the graph."""
    value: Any = weight_node(node)
    while isinstance(value, fx.Node) and value.op == "call_function" and value.args:
        value = value.args[0]  # a quantizer between the weight and its op
    if isinstance(value, fx.Node) and value.op == "get_attr":
        return str(value.target).rpartition(".")[0] or str(value.target)
    return node.name


def is_float(node: fx.Node) -> bool:
    """Whether a node gives a tensor of float32."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
