"""One capture of a model: ops, shapes, MACs, channel groups."""

from lianzhi.graph.macs import layers, macs, node_macs
from lianzhi.graph.module import TracedModule, get_tensor, replace_tensor
from lianzhi.graph.trace import Graph, capture, shape_of, split_inputs

__all__ = [
    "Graph",
    "TracedModule",
    "capture",
    "get_tensor",
    "layers",
    "macs",
    "node_macs",
    "replace_tensor",
    "shape_of",
    "split_inputs",
]
