"""From fake quantization to stored integers.

Weights become int8 (4-bit ones too, until they are packed in the file) and biases int32 tensors that `lianzhi::dequantize` reads; activations keep their fake
quantizers. It is still a module that PyTorch runs, and the one that is exported.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import DEQUANTIZE, FAKE_WEIGHT, quantize_symmetric
from lianzhi.quantize.fold import remove_unused

INT4_MAX, INT8_MAX = 7, 127


def lower(module: TracedModule) -> TracedModule:
    """A copy that stores integers where the module stores float weights."""
    module = copy.deepcopy(module)
    module.eval()
    stored: dict[tuple[str, str], tuple[str, str]] = {}
    for node in [item for item in module.graph.nodes if item.target in FAKE_WEIGHT]:
        _lower(module, node, stored)
    module.graph.eliminate_dead_code()
    remove_unused(module)
    return module


def _lower(module: TracedModule, node: fx.Node, stored: dict[tuple[str, str], tuple[str, str]]) -> None:
    """Replace a fake quantizer of a parameter by stored integers; what is used twice is stored once."""
    source, step, _, axis, qmin, qmax = node.args
    name = str(source.target)  # type: ignore[union-attr]
    key = (name, step.name)  # type: ignore[union-attr]
    if key not in stored:
        dtype = torch.int8 if qmax <= INT8_MAX else torch.int32  # type: ignore[operator]
        scale = _value(module, step)
        integers = quantize_symmetric(get_tensor(module, name).detach(), scale, qmin, qmax, axis)  # type: ignore[arg-type]
        leaf = "int4" if qmax <= INT4_MAX else str(dtype).removeprefix("torch.")  # type: ignore[operator]
        stored[key] = (
            _store(module, f"{name}_{leaf}", integers.to(dtype)),
            _store(module, f"{name}_scale", scale),
        )
    with module.graph.inserting_before(node):
        integers_node, scale_node = (module.graph.get_attr(item) for item in stored[key])
        read = module.graph.call_function(DEQUANTIZE, (integers_node, scale_node, axis))
    node.replace_all_uses_with(read)
    module.graph.erase_node(node)


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
