"""An ONNX graph with the questions that placement asks."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT = 1  # ONNX's number of float32


class Net:
    """Makers, readers, constants and types of the main graph of a model.

    `nested`: names that a subgraph (of If, Loop, Scan) reads from the main graph.
    """

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        graph = proto.graph
        self.nodes = list(graph.node)
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        self.nested: set[str] = set()
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    self.nested |= names_read(inner)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {item.name for item in graph.output}
        self.inputs = [item.name for item in graph.input]
        typed = (*graph.input, *graph.output, *graph.value_info)
        self.types = {item.name: item.type.tensor_type.elem_type for item in typed}
        shapes = [(item.name, item.type.tensor_type) for item in typed]
        self.ranks = {name: len(kind.shape.dim) for name, kind in shapes if kind.HasField("shape")}

    def array(self, name: str) -> np.ndarray | None:
        """The value of a constant."""
        import onnx

        tensor = self.tensors.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def computed(self, name: str) -> bool:
        """Whether a value is an input of the model or the result of a node."""
        return bool(name) and name not in self.tensors

    def is_float(self, name: str) -> bool:
        """Whether a value is known to be float32."""
        return self.types.get(name) == FLOAT

    def read_once(self, name: str) -> bool:
        """Whether one node reads a value, and nobody else."""
        return len(self.readers.get(name, ())) == 1 and name not in self.outputs | self.nested


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, or what it is where it is not written.

    >>> import onnx
    >>> attribute(onnx.helper.make_node("Gemm", ["a", "b"], ["c"], alpha=0.5), "alpha", 1.0)
    0.5
    """
    import onnx

    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def opset(proto: Any) -> int:
    """The version of ONNX's own ops that a model uses."""
    return max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=0)


def subgraphs(node: Any) -> list[Any]:
    """The graphs inside a node, and those inside these."""
    found = []
    for item in node.attribute:
        for graph in [item.g] if item.HasField("g") else item.graphs:
            found.append(graph)
            found += [inner for child in graph.node for inner in subgraphs(child)]
    return found


def names_read(graph: Any) -> set[str]:
    """Every name that a subgraph and those inside it read or give out."""
    names = {item.name for item in graph.output}
    for node in graph.node:
        names.update(node.input)
        for inner in subgraphs(node):
            names |= names_read(inner)
    return names


def label(node: Any) -> str:
    """How the report calls a node: its name, else its kind and what it makes."""
    if node.name:
        return str(node.name)
    return f"{node.op_type} '{node.output[0]}'" if node.output else str(node.op_type)
