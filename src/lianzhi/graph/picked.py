"""Rows that a mask picks, as many as the data say: a graph that asks for the last one of each sample takes it by its place.

Encoders with a decoder (BART, T5) classify by the state of the last end token: ``states[mask].view(batch, -1, width)[:, -1]``. That
has no size before it is run, fails unless all samples have as many such tokens, and gives a sample the rows of others where
their number happens to divide. By its place a sample has its own, and every size is known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode

aten = torch.ops.aten
_VIEWS = (aten.view.default, aten.reshape.default)


def settle(graph: fx.Graph) -> None:
    """Take the last picked row by its place, squeeze no free dimension, and drop the tracer's checks of sizes.

    The checks hold for the traced batch of two; what is computed for them alone goes with them.
    """
    checks = [node for node in graph.nodes if node.target is aten._assert_scalar.default]
    for node in checks:
        graph.erase_node(node)
    if checks:
        _sweep(graph)
    for node in list(graph.nodes):
        if node.target is aten.index.Tensor:
            _by_place(graph, node)
        elif node.target is aten.squeeze.default:
            _squeeze_fixed(node)


def _sweep(graph: fx.Graph) -> None:
    """Drop what nothing reads, but for ops that change a tensor or draw random numbers."""
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function" or node.users:
            continue
        schema = getattr(node.target, "_schema", None)
        tags = getattr(node.target, "tags", ())
        if (schema is None or not schema.is_mutable) and torch.Tag.nondeterministic_seeded not in tags:
            graph.erase_node(node)


def _by_place(graph: fx.Graph, picked: fx.Node) -> None:
    """Where all that is taken of the picked rows is the last one of each sample: that row of the states themselves."""
    states, chosen = picked.args[0], picked.args[1]
    mask = chosen[0] if isinstance(chosen, (list, tuple)) and len(chosen) == 1 else None
    if not isinstance(states, fx.Node) or not isinstance(mask, fx.Node):
        return
    of_mask = mask.meta.get("val")
    if not isinstance(of_mask, torch.Tensor) or of_mask.dtype != torch.bool or of_mask.ndim != 2:
        return
    last = _last_row(picked)
    if last is None or states.meta["val"].ndim != 3:
        return
    with graph.inserting_before(last):
        batch, length = (_call(graph, last, aten.sym_size.int, mask, dim) for dim in (0, 1))
        rows, places = (_call(graph, last, aten.arange.default, size) for size in (batch, length))
        marked = _call(
            graph, last, aten.mul.Tensor, mask, places
        )  # of each token that is marked its place, of others 0
        found = _call(graph, last, aten.argmax.default, marked, 1)
        row = _call(graph, last, aten.index.Tensor, states, [rows, found])
    last.replace_all_uses_with(row)
    for node in (last, *_between(picked, last), picked):
        graph.erase_node(node)


def _last_row(picked: fx.Node) -> fx.Node | None:
    """The node that takes the last row, if nothing else is made of the picked ones."""
    view = _only_user(picked)
    if view is None or view.target not in _VIEWS or view.meta["val"].ndim != 3:
        return None
    sizes: Any = view.args[1]
    node = _only_user(view)
    while node is not None and node.target is aten.slice.Tensor and _is_whole(node):
        node = _only_user(node)
    takes = node is not None and node.target is aten.select.int and tuple(node.args[1:]) == (1, -1)
    return node if takes and sizes[1] == -1 else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_whole(node: fx.Node) -> bool:
    """Whether a slice takes all."""
    rest = (*node.args[2:], None, None)
    return rest[0] in (None, 0) and (rest[1] is None or rest[1] == (1 << 63) - 1) and len(node.args) < 5


def _between(picked: fx.Node, last: fx.Node) -> list[fx.Node]:
    """The nodes from the picked rows to the last one, those that read first."""
    found: list[fx.Node] = []
    node = last.args[0]
    while isinstance(node, fx.Node) and node is not picked:
        found.append(node)
        node = node.args[0]
    return found


def _call(graph: fx.Graph, like: fx.Node, target: Any, *args: Any) -> fx.Node:
    """A new node, with the value that it has for the traced inputs, in the module of another."""
    node = graph.call_function(target, args)
    node.meta = {key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta}
    values = fx.map_arg(args, lambda one: one.meta["val"])
    mode = detect_fake_mode([like.meta["val"]])
    assert mode is not None
    with mode:
        node.meta["val"] = target(*values)
    return node


def _squeeze_fixed(node: fx.Node) -> None:
    """Dimensions that are one in every batch alone: at a batch of one the batch would go, too."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    shape = source.meta["val"].shape
    fixed = [dim for dim, size in enumerate(shape) if isinstance(size, int) and size == 1]
    if len(fixed) == 1:
        node.target, node.args = aten.squeeze.dim, (source, fixed[0])
    elif fixed:
        node.target, node.args = aten.squeeze.dims, (source, fixed)
    else:
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)
