"""A quantized module that holds integers, for a file where every byte counts: it computes what the module computes.

Weights with a scale an output channel (or one for all) become int8, times their scale when the module runs, in PyTorch's own ops
alone, so that the module can be saved and loaded. Biases, tables of embeddings and weights with a scale a group stay as they are.
"""

from __future__ import annotations

import copy

import torch

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_WEIGHT, along
from lianzhi.quantize.fold import remove_unused
from lianzhi.quantize.lower import INT8_MAX, stored_integers
from lianzhi.quantize.ptq.walk import evaluate
from lianzhi.quantize.tables import looked_up, rounded_table

aten = torch.ops.aten


def with_integers(module: TracedModule) -> TracedModule:
    """A copy that stores int8 where the module stores float weights that it rounds.

    ```python
    lz.codebook.pack(quantize.with_integers(quantized.model), "model.lzc", example_inputs=images)
    ```
    """
    module = copy.deepcopy(module)
    names: dict[tuple[str, str], tuple[str, str]] = {}
    for node in list(module.graph.nodes):
        if node.target is not FAKE_CHANNEL or node.args[0].op != "get_attr" or looked_up(node) is not None:
            continue
        source, step, _, axis, qmin, qmax = node.args
        weight = get_tensor(module, str(source.target))
        if qmax > INT8_MAX or weight.dim() < 2:
            continue
        integers, scale = stored_integers(module, source, step, (axis, qmin, qmax), names)
        shaped = get_tensor(module, scale)
        if shaped.dim() == 1:  # of a weight that is read twice it is in shape already
            shaped = along(shaped, weight, axis)
        path, _, leaf = scale.rpartition(".")
        module.get_submodule(path).register_buffer(leaf, shaped.clone())
        with module.graph.inserting_before(node):
            stored = module.graph.get_attr(integers)
            cast = module.graph.call_function(aten.to.dtype, (stored, torch.float32))
            factor = module.graph.get_attr(scale)
            value = module.graph.call_function(aten.mul.Tensor, (cast, factor))
        stored.meta["val"], factor.meta["val"] = get_tensor(module, integers).to("meta"), shaped.to("meta")
        cast.meta["val"] = value.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    remove_unused(module)
    module.recompile()
    return module


def rounded_nonzero(module: TracedModule) -> dict[str, int]:
    """How many integers of each rounded weight or table are not zero, by the name of its float weight.

    ```python
    quantize.rounded_nonzero(quantized.model)   # {'conv.weight': 1830, 'head.weight': 64}
    ```
    """
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        rows = looked_up(node)
        if rows is not None:
            name = str(rows.args[0].target)  # type: ignore[union-attr]
            found[name] = int(rounded_table(module, node).count_nonzero())
        elif node.target in FAKE_WEIGHT and node.args[0].op == "get_attr":
            name, value = str(node.args[0].target), evaluate(module, node)
            if value.dim() >= 2:
                found[name] = int(value.count_nonzero())
    return found
