"""Fold BatchNorm into the convolution or linear layer before it, on a captured graph.

``w' = w * gamma / sqrt(var + eps)``, ``b' = (b - mean) * gamma / sqrt(var + eps) + beta``, computed in
float64. Without it no integer kernel fuses: int8 would run slower than float.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from lianzhi.graph import TracedModule, get_tensor

aten = torch.ops.aten

# op → axis of the weight that holds the output channels
FOLDABLE: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv2d.default: 0,
    aten.conv3d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.padding: 0,
    aten.conv3d.padding: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.conv_transpose3d.input: 1,
}


def fold_batch_norm(module: TracedModule) -> tuple[list[str], list[tuple[str, str]]]:
    """Fold in place what can be folded. Return the names of the layers, and what stays with the reason.

    The module's output is unchanged up to rounding. Weights that are used twice are not touched.
    """
    folded, left = [], []
    for norm in [node for node in module.graph.nodes if node.target is aten.batch_norm.default]:
        reason = _obstacle(module, norm)
        name = _owner(norm.args[3])
        if reason:
            left.append((name, reason))
            continue
        _fold(module, norm)
        folded.append(name)
    remove_unused(module)
    return folded, left


def _obstacle(module: TracedModule, norm: fx.Node) -> str:
    """Why this BatchNorm cannot be folded, or ""."""
    layer = norm.args[0]
    if not isinstance(layer, fx.Node) or layer.target not in FOLDABLE:
        return "no convolution or linear layer stands directly before it"
    if any(not isinstance(value, fx.Node) for value in norm.args[3:5]):
        return "it has no running statistics"
    if len(layer.users) > 1:
        return "the layer before it is also used elsewhere"
    weight = layer.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return "the weight of the layer before it is computed"
    if _uses(module, str(weight.target)) > 1:
        return "the layer before it is used more than once"
    if FOLDABLE[layer.target] == 1 and _argument(layer, 6, "groups", 1) != 1:
        return "a grouped transposed convolution stands before it"
    shape = norm.meta.get("val")
    if layer.target is aten.linear.default and shape is not None and shape.dim() != 2:
        return "its channels are not the outputs of the linear layer before it"
    return ""


def _fold(module: TracedModule, norm: fx.Node) -> None:
    layer: fx.Node = norm.args[0]  # type: ignore[assignment]
    axis = FOLDABLE[layer.target]
    weight_name = str(layer.args[1].target)  # type: ignore[union-attr]
    weight = get_tensor(module, weight_name).detach().double()
    gamma, beta, mean, variance = (_value(module, node) for node in norm.args[1:5])
    factor = (variance + float(norm.args[7])).rsqrt()  # type: ignore[arg-type]
    factor = factor if gamma is None else gamma * factor
    bias = _value(module, _argument(layer, 2, "bias", None))
    moved = (-mean if bias is None else bias - mean) * factor
    moved = moved if beta is None else moved + beta
    shape = [1] * weight.dim()
    shape[axis] = -1
    prefix = weight_name.rpartition(".")[0]
    owner = module.get_submodule(prefix)
    owner.register_parameter(
        weight_name.rpartition(".")[2], nn.Parameter((weight * factor.view(shape)).float())
    )
    bias_name = _free_name(owner, "bias", bias is not None)
    owner.register_parameter(bias_name, nn.Parameter(moved.float()))
    with module.graph.inserting_before(layer):
        node = module.graph.get_attr(f"{prefix}.{bias_name}" if prefix else bias_name)
        node.meta["val"] = moved.float().to("meta")
    arguments = list(layer.args) + [None] * (3 - len(layer.args))
    arguments[2] = node
    layer.args = tuple(arguments)
    layer.kwargs = {key: value for key, value in layer.kwargs.items() if key != "bias"}
    norm.replace_all_uses_with(layer)
    module.graph.erase_node(norm)


def _free_name(owner: nn.Module, name: str, own: bool) -> str:
    """`name`, unless something else of the owner already has it."""
    if own or name not in {**owner._parameters, **owner._buffers} or owner._parameters.get(name) is None:
        return name
    return f"folded_{name}"


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _value(module: TracedModule, node: Any) -> Any:
    return get_tensor(module, str(node.target)).detach().double() if isinstance(node, fx.Node) else None


def _uses(module: TracedModule, name: str) -> int:
    """How many ops read a tensor, under any of its names."""
    tensor = get_tensor(module, name)
    return sum(
        len(node.users)
        for node in module.graph.nodes
        if node.op == "get_attr" and get_tensor(module, str(node.target)) is tensor
    )


def _owner(node: Any) -> str:
    return str(node.target).rpartition(".")[0] if isinstance(node, fx.Node) else "batch_norm"


def remove_unused(module: TracedModule) -> None:
    """Drop tensors that no op reads any more, and empty submodules."""
    for node in reversed(list(module.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            module.graph.erase_node(node)
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in module.named_parameters(remove_duplicate=False)]:
        if name not in used:
            path, _, leaf = name.rpartition(".")
            del module.get_submodule(path)._parameters[leaf]
    for name in [name for name, _ in module.named_buffers(remove_duplicate=False)]:
        if name not in used:
            path, _, leaf = name.rpartition(".")
            del module.get_submodule(path)._buffers[leaf]
    _drop_empty(module)
    module.recompile()


def _drop_empty(module: nn.Module) -> bool:
    """Remove submodules that hold nothing. True if `module` itself is empty then."""
    for name, child in list(module._modules.items()):
        if child is None or _drop_empty(child):
            del module._modules[name]
    return not (module._modules or module._parameters or module._buffers)
