"""Embedding tables: no product, so nothing is faster in int8, and the file is smaller by what the table weighs.

Rows are looked up as integers, and only those that are needed become floats. A table that a layer reads as well (tied
embeddings) is quantized with it: in float for one of the two, all of it would be stored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import fx

from lianzhi.graph import TracedModule
from lianzhi.quantize.placement import ops
from lianzhi.quantize.placement.names import is_float, layer_name


def place_tables(
    module: TracedModule, quantized: Collection[fx.Node], ignored: Callable[[str], bool], refusal: str
) -> tuple[list[fx.Node], list[tuple[str, str]]]:
    """The look-ups whose table is quantized, and those that stay float with the reason, in order.

    `quantized` holds the ops whose weight is; `refusal` says why the target keeps every table in float, or is "".
    """
    taken, left = [], []
    for node in [item for item in module.graph.nodes if item.target in ops.TABLES]:
        reason = _obstacle(node, quantized, ignored) or refusal
        if reason:
            left.append((layer_name(node), reason))
        else:
            taken.append(node)
    return taken, left


def _obstacle(node: fx.Node, quantized: Collection[fx.Node], ignored: Callable[[str], bool]) -> str:
    table = node.args[0]
    if ignored(layer_name(node)):
        return "ignored, as asked"
    if not isinstance(table, fx.Node) or table.op != "get_attr":
        return "its table is computed, not a parameter"
    if not is_float(table):
        return "its table is not float32"
    others = [user for user in table.users if user.target not in ops.TABLES]
    alone = next((user for user in others if user not in quantized), None)
    return f"'{alone.name}' reads the same table in float" if alone is not None else ""
