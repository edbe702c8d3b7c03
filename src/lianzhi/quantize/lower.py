"""From fake quantization to stored integers.

Weights become int8 (4-bit ones too, until they are packed in the file) and biases int32 tensors that `lianzhi::dequantize`
reads, tables of embeddings int8 ones for `lianzhi::dequantize_rows`; activations keep their fake quantizers. It is still a module that PyTorch runs, and the one that is exported.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import DEQUANTIZE, DEQUANTIZE_ROWS, FAKE_WEIGHT, quantize_symmetric
from lianzhi.quantize.fold import remove_unused
from lianzhi.quantize.tables import looked_up

INT4_MAX, INT8_MAX = 7, 127
Stored = dict[
    tuple[str, str], tuple[str, str]
]  # parameter and scale: the names of the integers and of their scale


def lower(module: TracedModule) -> TracedModule:
    """A copy that stores integers where the module stores float weights."""
    module = copy.deepcopy(module)
    module.eval()
    stored: Stored = {}
    for node in list(module.graph.nodes):
        rows = looked_up(node)
        if rows is not None:
            _lower_rows(module, node, rows, stored)
        elif node.target in FAKE_WEIGHT and node.args[0].op == "get_attr":
            _lower(module, node, stored)
    module.graph.eliminate_dead_code()
    remove_unused(module)
    return module


def _lower(module: TracedModule, node: fx.Node, stored: Stored) -> None:
    """Replace a fake quantizer of a parameter by stored integers."""
    source, step, _, axis, qmin, qmax = node.args
    names = stored_integers(module, source, step, (axis, qmin, qmax), stored)
    with module.graph.inserting_before(node):
        read = module.graph.call_function(DEQUANTIZE, (*map(module.graph.get_attr, names), axis))
    node.replace_all_uses_with(read)
    module.graph.erase_node(node)


def _lower_rows(module: TracedModule, node: fx.Node, rows: fx.Node, stored: Stored) -> None:
    """Replace rows that are looked up and then rounded by rows of stored integers."""
    _, steps, _, _, qmin, qmax = node.args[0].args  # type: ignore[union-attr]
    (table, indices), step = rows.args[:2], steps.args[0]  # type: ignore[union-attr]
    integers, scale = stored_integers(module, table, step, (0, qmin, qmax), stored)
    column = stored.get((scale, "column"))
    if column is None:
        column = (integers, _store(module, f"{table.target}_row_scale", get_tensor(module, scale)[:, None]))  # type: ignore[union-attr]
        stored[scale, "column"] = column
    with module.graph.inserting_before(node):
        read = module.graph.call_function(DEQUANTIZE_ROWS, (*map(module.graph.get_attr, column), indices))
    node.replace_all_uses_with(read)
    module.graph.erase_node(node)


def stored_integers(
    module: TracedModule, source: Any, step: Any, grid: tuple[Any, ...], stored: Stored
) -> tuple[str, str]:
    """The names of a parameter's integers and their scale; what is used twice is stored once."""
    (axis, qmin, qmax), name = grid, str(source.target)
    key = (name, step.name)
    if key not in stored:
        dtype = torch.int8 if qmax <= INT8_MAX else torch.int32
        scale = _value(module, step)
        integers = quantize_symmetric(get_tensor(module, name).detach(), scale, qmin, qmax, axis)
        leaf = "int4" if qmax <= INT4_MAX else str(dtype).removeprefix("torch.")
        stored[key] = (
            _store(module, f"{name}_{leaf}", integers.to(dtype)),
            _store(module, f"{name}_scale", scale),
        )
    return stored[key]


def _store(module: TracedModule, name: str, tensor: Tensor) -> str:
    """Keep a tensor as a buffer of this name, or of the next free one like it."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    free, count = leaf, 1
    while hasattr(owner, free):
        free, count = f"{leaf}_{count}", count + 1
    owner.register_buffer(free, tensor)
    return f"{path}.{free}" if path else free


def _value(module: TracedModule, node: Any) -> Tensor:
    """A buffer, or the product of two."""
    if node.op == "get_attr":
        return get_tensor(module, str(node.target)).detach()
    left, right = (_value(module, item) for item in node.args)
    return left * right
