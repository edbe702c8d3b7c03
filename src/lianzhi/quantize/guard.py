"""Keep float layers float in ONNX Runtime.

At load time ONNX Runtime (from 1.20) rounds the weight of a `Conv`, `ConvTranspose` or `Gemm` to int8 with one scale a
tensor, if its input comes from a DequantizeLinear and the weight is a float initializer: a layer that was left in float
because int8 spoils it would be spoilt worse. An op between the two that changes nothing keeps it from doing so: a Clip
to the range of float32, which no optimisation removes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT = 1  # ONNX's number of the type
OPS = ("Conv", "ConvTranspose", "Gemm")
LOWEST = float(np.finfo(np.float32).min)


def guard_float_layers(proto: Any) -> list[str]:
    """Put a Clip before every such layer, in place; return the names of their weights."""
    from onnx import helper

    stored = {item.name: item.data_type for item in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    guarded: dict[str, str] = {}
    found, nodes = [], []
    for node in proto.graph.node:
        source = makers.get(node.input[0]) if node.op_type in OPS else None
        if source is not None and source.op_type == "DequantizeLinear" and stored.get(node.input[1]) == FLOAT:
            name = node.input[0]
            if name not in guarded:
                guarded[name] = f"{name}_float"
                if len(guarded) == 1:
                    proto.graph.initializer.append(helper.make_tensor("float_lowest", FLOAT, [], [LOWEST]))
                nodes.append(
                    helper.make_node("Clip", [name, "float_lowest"], [guarded[name]], f"{name}_clip")
                )
            node.input[0] = guarded[name]
            found.append(node.input[1])
        nodes.append(node)
    if found:
        kept = [type(node)() for node in nodes]
        for copy, node in zip(kept, nodes, strict=True):
            copy.CopyFrom(node)
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
    return found
