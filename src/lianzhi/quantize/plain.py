"""A quantized module in PyTorch's own ops, which an artifact may hold: a group of a weight is a row of its own."""

from __future__ import annotations

import copy

import torch

from lianzhi.graph import TracedModule, get_tensor, replace_tensor
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_GROUPS

aten = torch.ops.aten


def plain(module: TracedModule) -> TracedModule:
    """The same module, or a copy that computes the same where weights have a scale a group.

    ```python
    lz.save(quantize.plain(quantized.model), "out/small", example_inputs=images)
    ```
    """
    if not any(node.target is FAKE_GROUPS for node in module.graph.nodes):
        return module
    module = copy.deepcopy(module)
    for node in [item for item in module.graph.nodes if item.target is FAKE_GROUPS]:
        source, scale, zero_point, _, qmin, qmax = node.args
        weight = get_tensor(module, str(source.target))  # type: ignore[union-attr]
        groups = get_tensor(module, str(scale.target)).numel()  # type: ignore[union-attr]
        for item in (scale, zero_point):
            name = str(item.target)  # type: ignore[union-attr]
            flat = get_tensor(module, name).detach().flatten()
            replace_tensor(module, name, flat)
            item.meta["val"] = flat.to("meta")  # type: ignore[union-attr]
        with module.graph.inserting_before(node):
            rows = module.graph.call_function(aten.reshape.default, (source, [groups, -1]))
            rounded = module.graph.call_function(FAKE_CHANNEL, (rows, scale, zero_point, 0, qmin, qmax))
            back = module.graph.call_function(aten.reshape.default, (rounded, list(weight.shape)))
        rows.meta["val"] = rounded.meta["val"] = weight.detach().reshape(groups, -1).to("meta")
        back.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(back)
        module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()
    return module
