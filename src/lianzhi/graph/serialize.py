"""A captured graph as JSON and back, over an allow-list of ATen ops.

``nodes`` are in order of execution: ``{"op": "input", "name"}``, ``{"op": "read", "name", "tensor"}`` or
``{"op": "call", "name", "target", "args", "kwargs"}``. ``arguments`` are the model's own, as trees
(`structure.py`) with leaves ``{"input": node}``, the first `positional` of them without keyword; ``outputs`` is
a tree with leaves ``{"value": argument}`` (`values.py`). ``tensors`` says what each named tensor is.
Reading is in `deserialize.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.errors import ArtifactError
from lianzhi.graph import sizes
from lianzhi.graph.allowed_ops import DROPPED, is_known
from lianzhi.graph.deserialize import BUFFER, FROZEN, PARAMETER, TEMPORARY, from_json
from lianzhi.graph.module import get_tensor
from lianzhi.graph.structure import describe, tree_of
from lianzhi.graph.values import encode

__all__ = ["from_json", "tensor_kinds", "to_json"]


def tensor_kinds(module: nn.Module) -> dict[str, str]:
    """What every named tensor is: ``parameter``, ``frozen`` (no gradient), ``buffer``, or ``temporary`` (no state).

    >>> tensor_kinds(nn.Linear(2, 2))
    {'weight': 'parameter', 'bias': 'parameter'}
    """
    kinds = {
        name: PARAMETER if parameter.requires_grad else FROZEN
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    for name, _ in module.named_buffers(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        kept = leaf not in module.get_submodule(path)._non_persistent_buffers_set
        kinds[name] = BUFFER if kept else TEMPORARY
    if isinstance(module, fx.GraphModule):
        for node in module.graph.nodes:
            if node.op == "get_attr":
                kinds.setdefault(str(node.target), TEMPORARY)
    return kinds


def to_json(module: fx.GraphModule) -> dict[str, Any]:
    """A graph of ATen ops as JSON-ready values, without its tensors.

    >>> from lianzhi.graph import capture
    >>> graph = capture(nn.ReLU(), torch.zeros(1, 3))
    >>> to_json(graph.module)["nodes"][1]["target"]
    'aten.relu.default'

    Raises `ArtifactError` that names an op which is not on the allow-list.
    """
    entries, flat, result = [], [], ()
    for node in module.graph.nodes:
        if node.op == "output":
            result = node.args[0]
            continue
        if node.op == "placeholder":
            flat.append(node.name)
        if _name_of(node.target) in DROPPED and not node.users:
            continue
        entries.append(_entry(module, node))
    arguments, positional = _arguments(module, flat)
    return {
        "nodes": entries,
        "arguments": arguments,
        "positional": positional,
        "outputs": _outputs(module, result),
        "tensors": tensor_kinds(module),
    }


def _entry(module: fx.GraphModule, node: fx.Node) -> dict[str, Any]:
    if node.op == "placeholder":
        return {"op": "input", "name": node.name}
    if node.op == "get_attr":
        if not isinstance(get_tensor(module, str(node.target)), Tensor):
            raise ArtifactError(
                f"'{node.target}' is a part of the model inside a block such as torch.autocast, which cannot be "
                f"saved; take the block out of forward"
            )
        return {"op": "read", "name": node.name, "tensor": str(node.target)}
    if node.op != "call_function":
        raise ArtifactError(f"'{node.name}' calls {node.target}, which is not an op; capture the model again")
    target = _name_of(node.target)
    if not is_known(target):
        raise ArtifactError(
            f"the op {target} (at '{node.name}') is not among those that an artifact may hold"
        )
    kwargs = {key: encode(value) for key, value in node.kwargs.items()}
    return {"op": "call", "name": node.name, "target": target, "args": encode(node.args), "kwargs": kwargs}


def _name_of(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    if getattr(target, "__name__", "") == "getitem":
        return "operator.getitem"
    return sizes.NAMES.get(target) or str(getattr(target, "__name__", target))


def _arguments(module: fx.GraphModule, flat: list[str]) -> tuple[list[Any], int]:
    """The model's arguments as trees over the graph's inputs, and how many are positional."""
    info = getattr(module.graph._codegen, "pytree_info", None)
    if info is None:
        return [[name, {"input": name}] for name in flat], len(flat)
    leaves = iter([{"input": name} for name in flat])
    positional, named = info.in_spec.child(0), info.in_spec.child(1)
    trees = [tree_of(positional.child(index), leaves) for index in range(positional.num_children)]
    names = [*info.orig_args[: len(trees)], *named.context]
    trees += [tree_of(named.child(index), leaves) for index in range(named.num_children)]
    return [list(pair) for pair in zip(names, trees, strict=True)], positional.num_children


def _outputs(module: fx.GraphModule, result: Any) -> Any:
    info = getattr(module.graph._codegen, "pytree_info", None)
    if info is None or info.out_spec is None:
        return describe(result, lambda value: {"value": encode(value)})
    flat = result if isinstance(result, (list, tuple)) else [result]
    return tree_of(info.out_spec, iter([{"value": encode(value)} for value in flat]))
