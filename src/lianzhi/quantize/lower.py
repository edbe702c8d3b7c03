"""From fake quantization to stored integers.

Weights become int8 and biases int32 tensors that `lianzhi::dequantize` reads; activations keep their fake
quantizers. It is still a module that PyTorch runs, and the one that is exported.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import DEQUANTIZE, FAKE_CHANNEL, quantize_symmetric
from lianzhi.quantize.fold import remove_unused
from lianzhi.quantize.insert import bias_of, input_quantizer, input_scale
from lianzhi.quantize.placement.ops import WEIGHTED


def lower(module: TracedModule) -> TracedModule:
    """A copy that stores integers where the module stores float weights."""
    module = copy.deepcopy(module)
    module.eval()
    for node in list(module.graph.nodes):
        if (
            node.target in WEIGHTED
            and isinstance(node.args[1], fx.Node)
            and node.args[1].target is FAKE_CHANNEL
        ):
            _lower_bias(module, node)
    stored: dict[str, str] = {}
    for node in [item for item in module.graph.nodes if item.target is FAKE_CHANNEL]:
        _lower_weight(module, node, stored)
    remove_unused(module)
    return module


def _lower_weight(module: TracedModule, node: fx.Node, stored: dict[str, str]) -> None:
    weight, scale, _, axis, qmin, qmax = node.args
    name = str(weight.target)  # type: ignore[union-attr]
    if name not in stored:
        values = get_tensor(module, name).detach()
        integers = quantize_symmetric(values, _value(module, scale), qmin, qmax, axis)  # type: ignore[arg-type]
        stored[name] = _store(module, f"{name}_int8", integers.to(torch.int8))
    with module.graph.inserting_before(node):
        read = module.graph.call_function(DEQUANTIZE, (module.graph.get_attr(stored[name]), scale, axis))
    node.replace_all_uses_with(read)
    module.graph.erase_node(node)


def _lower_bias(module: TracedModule, node: fx.Node) -> None:
    bias = bias_of(node)
    if bias is None or input_quantizer(node) is None:
        return
    quantizer: fx.Node = node.args[1]  # type: ignore[assignment]
    scale = input_scale(module, node) * _value(module, quantizer.args[1])
    values = get_tensor(module, str(bias.target)).detach()
    integers = (values.double() / scale.double()).round().to(torch.int32)
    names = [
        _store(module, f"{bias.target}_int32", integers),
        _store(module, f"{bias.target}_scale", scale),
    ]
    with module.graph.inserting_before(node):
        read = module.graph.call_function(DEQUANTIZE, (*(module.graph.get_attr(name) for name in names), 0))
    arguments = list(node.args) + [None] * (3 - len(node.args))
    arguments[2] = read
    node.args = tuple(arguments)
    node.kwargs = {key: item for key, item in node.kwargs.items() if key != "bias"}


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
    return get_tensor(module, str(node.target)).detach()
