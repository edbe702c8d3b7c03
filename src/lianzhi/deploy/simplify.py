"""Say the same in the operators that runtimes have their best kernels for."""

from __future__ import annotations

from typing import Any


def pool_globally(proto: Any) -> None:
    """Turn the mean over all positions of an image or a video into GlobalAveragePool, in place.

    PyTorch's exporter writes it as ReduceMean, for which ONNX Runtime has no integer kernel.
    """
    import onnx

    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in proto.graph.value_info}
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) <= 1
    }
    for index, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        rank = ranks.get(node.input[0], 0)
        axes = sorted(int(axis) % max(rank, 1) for axis in constants[node.input[1]].reshape(-1))
        if rank not in (4, 5) or axes != list(range(2, rank)):
            continue
        keeps = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        node.op_type = "GlobalAveragePool"
        del node.input[1:]
        del node.attribute[:]
        if not keeps:
            result = node.output[0]
            node.output[0] = f"{result}_pooled"
            flat = onnx.helper.make_node(
                "Flatten", [node.output[0]], [result], name=f"{node.name}_flat", axis=1
            )
            proto.graph.node.insert(index + 1, flat)
    _drop_unread(proto)


def _drop_unread(proto: Any) -> None:
    """Remove constants that no node reads."""
    read = {name for node in proto.graph.node for name in node.input} | {
        item.name for item in proto.graph.output
    }
    for node in proto.graph.node:
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            return  # a subgraph may read them
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    if len(kept) < len(proto.graph.initializer):
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
