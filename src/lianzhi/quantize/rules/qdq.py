"""An ONNX graph with the questions that rules ask."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from lianzhi.deploy.inspection import read_onnx

WEIGHTED = {"Conv", "Gemm", "MatMul", "ConvTranspose"}
CLAMPS = {"Relu", "Clip"}


class QdqGraph:
    """Producers, readers and constants of a file's main graph."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.proto = read_onnx(path)
        self.nodes = list(self.proto.graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.tensors = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.outputs = {item.name for item in self.proto.graph.output}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initializer or of a Constant node."""
        import onnx

        if name in self.tensors:
            value: np.ndarray = onnx.numpy_helper.to_array(self.tensors[name])
            return value
        node = self.makers.get(name)
        if (
            node is not None
            and node.op_type == "Constant"
            and node.attribute
            and node.attribute[0].HasField("t")
        ):
            return onnx.numpy_helper.to_array(node.attribute[0].t)
        return None

    def maker(self, name: str, kind: str) -> Any:
        """The node that makes a value, if it is of this kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def zero_point(self, node: Any) -> np.ndarray | None:
        """The zero point of a Q or DQ node."""
        return self.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None

    def weights(self) -> list[tuple[Any, Any]]:
        """Ops with a constant weight, and the DQ node that it comes through (None: it is float)."""
        found = []
        for node in self.nodes:
            if node.op_type not in WEIGHTED or len(node.input) < 2:
                continue
            reader = self.maker(node.input[1], "DequantizeLinear")
            if reader is not None and (
                self.constant(reader.input[0]) is not None or self.maker(reader.input[0], "QuantizeLinear")
            ):
                source = self.maker(reader.input[0], "QuantizeLinear")
                if source is None or self.constant(source.input[0]) is not None:
                    found.append((node, reader))
            elif self.constant(node.input[1]) is not None:
                found.append((node, None))
        return found

    def activations(self) -> list[Any]:
        """The QuantizeLinear nodes of computed values."""
        return [
            node
            for node in self.nodes
            if node.op_type == "QuantizeLinear" and self.constant(node.input[0]) is None
        ]


def name_of(node: Any) -> str:
    """A node's name, or that of what it makes."""
    return node.name or (node.output[0] if node.output else node.op_type)
