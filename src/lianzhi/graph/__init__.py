"""One capture of a model: ops, shapes, MACs, channel groups."""

from lianzhi.graph.blocks import first_tensor, like_blocks
from lianzhi.graph.fingerprint import fingerprint
from lianzhi.graph.finite import check_values
from lianzhi.graph.groups import Group, Groups, channel_groups
from lianzhi.graph.macs import layers, macs, node_macs
from lianzhi.graph.mode import in_eval
from lianzhi.graph.module import TracedModule, get_tensor, replace_tensor
from lianzhi.graph.place import device_of, moved, on_cpu
from lianzhi.graph.tokens import are_tokens
from lianzhi.graph.trace import Graph, capture, shape_of, split_inputs

__all__ = [
    "Graph",
    "Group",
    "Groups",
    "TracedModule",
    "are_tokens",
    "capture",
    "channel_groups",
    "check_values",
    "device_of",
    "fingerprint",
    "first_tensor",
    "get_tensor",
    "in_eval",
    "layers",
    "like_blocks",
    "macs",
    "moved",
    "node_macs",
    "on_cpu",
    "replace_tensor",
    "shape_of",
    "split_inputs",
]
