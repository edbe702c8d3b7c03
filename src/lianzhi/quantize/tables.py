"""Embedding tables in integers: one scale a row, and rounding of those rows alone that were looked up.

In the graph a look-up becomes ``embedding → reshape → fake quantization → view_as``; the last op has the look-up's name.
In the file it is ``Gather(integers) → DequantizeLinear(1)`` times ``Gather(scales)``: a DequantizeLinear before the
look-up would make floats of the whole table, when the file is loaded or at every call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_CHANNEL
from lianzhi.quantize.rows import row_scale
from lianzhi.quantize.scheme import Scheme

TABLE = Scheme(8, per_channel=True)  # whatever the weights have: nothing is multiplied, and nothing saturates
LEAST_SHARED = (
    64  # the grid of a layer with 7 or 8 bits serves the table that it shares; a coarser one does not
)

aten = torch.ops.aten


def row_scales(table: Tensor) -> Tensor:
    """One scale a row ``(rows, width)``: its largest magnitude over 127.

    >>> row_scales(torch.tensor([[1.27, 0.0], [0.0, -12.7]]))
    tensor([0.0100, 0.1000])
    """
    return row_scale(table.detach(), TABLE)


def shared_quantizer(table: fx.Node) -> fx.Node | None:
    """The fake quantizer of a layer that reads the same table, with a scale a row and steps as fine as a table's."""
    for user in table.users:
        if user.target is FAKE_CHANNEL and user.args[3] == 0 and int(user.args[5]) >= LEAST_SHARED:  # type: ignore[arg-type]
            return user
    return None


def round_rows(module: TracedModule, node: fx.Node, scale: fx.Node, zero_point: fx.Node, qmax: int) -> None:
    """Round what a look-up gives, in place; the last op put behind it takes its name."""
    graph, value = module.graph, node.meta["val"]
    with graph.inserting_before(node):
        rows = graph.call_function(node.target, node.args, node.kwargs)  # type: ignore[arg-type]
        flat = graph.call_function(aten.reshape.default, (rows, [-1, value.shape[-1]]))
        where = graph.call_function(aten.reshape.default, (node.args[1], [-1]))
        step = graph.call_function(aten.index_select.default, (scale, 0, where))
        zero = graph.call_function(aten.index_select.default, (zero_point, 0, where))
        rounded = graph.call_function(FAKE_CHANNEL, (flat, step, zero, 0, -qmax, qmax))
    rows.meta["val"] = value
    flat.meta["val"] = rounded.meta["val"] = value.reshape(-1, value.shape[-1])
    where.meta["val"] = node.args[1].meta["val"].reshape(-1)  # type: ignore[union-attr]
    step.meta["val"], zero.meta["val"] = (
        item.meta["val"].new_empty(where.meta["val"].shape) for item in (scale, zero_point)
    )
    node.target, node.args, node.kwargs = aten.view_as.default, (rounded, rows), {}


def looked_up(node: fx.Node) -> fx.Node | None:
    """The look-up whose rounded rows a node gives, as `round_rows` put it there; None for any other node."""
    rounded: Any = node.args[0] if node.target is aten.view_as.default else None
    if not isinstance(rounded, fx.Node) or len(rounded.args) < 6 or len(node.args) < 2:
        return None
    rows: Any = node.args[1]
    scale: Any = rounded.args[1]
    by_row = isinstance(scale, fx.Node) and scale.target is aten.index_select.default
    return rows if by_row and rows.target is aten.embedding.default else None


def in_float_again(node: fx.Node) -> None:
    """Undo `round_rows`, in place; what it put there is dead code then."""
    rows = looked_up(node)
    assert rows is not None
    node.target, node.args, node.kwargs = rows.target, rows.args, rows.kwargs


def rounded_table(module: TracedModule, node: fx.Node) -> Tensor:
    """The table ``(rows, width)`` of a node that gives rounded rows, all of it rounded."""
    rows, (_, step, _, _, qmin, qmax) = looked_up(node), node.args[0].args  # type: ignore[union-attr]
    table = get_tensor(module, str(rows.args[0].target)).detach()  # type: ignore[union-attr]
    scale = get_tensor(module, str(step.args[0].target)).detach()  # type: ignore[union-attr]
    result: Tensor = FAKE_CHANNEL(table, scale, torch.zeros_like(scale, dtype=torch.int32), 0, qmin, qmax)
    return result
