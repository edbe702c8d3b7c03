"""Put fake quantizers into a graph: buffers for scale and zero point, and an op that reads them."""

from __future__ import annotations

from collections.abc import Container
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_GROUPS, FAKE_TENSOR, MIN_SCALE, qparams
from lianzhi.quantize.placement import Placement, weight_node
from lianzhi.quantize.placement.ops import LINEAR, weight_axis
from lianzhi.quantize.placement.plan import is_identity
from lianzhi.quantize.rows import can_group, grouped, row_scale
from lianzhi.quantize.scheme import Scheme, Schemes
from lianzhi.quantize.tables import TABLE, round_rows, row_scales, shared_quantizer

HOME = "quantizers"
BIAS_STEPS = 2.0**30  # a bias is stored in int32, in steps of (input scale * weight scale)
BIAS_MAX = 2**31 - 1


def insert(
    module: TracedModule, placement: Placement, ranges: dict[fx.Node, tuple[float, float]], schemes: Schemes
) -> None:
    """Quantize the values and weights of a placement, in place; its tables afterwards, by `insert_tables`."""
    home = free_key(module._modules, HOME)
    module.add_module(home, nn.Module())
    scales: dict[fx.Node, Tensor] = {}
    grid = schemes.activations
    for node in placement.values if grid is not None else []:
        assert grid is not None
        root = placement.shares.get(node, node)
        if root not in scales:
            low, high = ranges[root]
            scale, zero_point = qparams(torch.tensor(low), torch.tensor(high), grid)
            _store(module, home, root.name, scale, zero_point)
            scales[root] = scale
        scales[node] = scales[root]
        _after(module, node, f"{home}.{root.name}", grid)
    for name, nodes in _by_weight(placement.weights).items():
        assert schemes.weights is not None
        scale = weight_scale(module, name, nodes, schemes)
        key = free_key(module.get_submodule(home)._modules, name.replace(".", "_"))
        _store(module, home, key, scale, torch.zeros_like(scale, dtype=torch.int32))
        _before(module, nodes, f"{home}.{key}", schemes.weights)
        for node in nodes if schemes.integer_bias else []:
            _round_bias(module, node)
    module.recompile()


def insert_tables(module: TracedModule, nodes: list[fx.Node]) -> None:
    """Quantize the tables of look-ups, in place, after all weights: one that a layer reads as well has its scales."""
    home = free_key(module._modules, f"{HOME}_of_tables")
    for name, readers in _by_weight(nodes).items():
        shared = shared_quantizer(weight_node(readers[0]))
        if shared is None:
            values = row_scales(get_tensor(module, name))
            if home not in module._modules:
                module.add_module(home, nn.Module())
            key = free_key(module.get_submodule(home)._modules, name.replace(".", "_"))
            _store(module, home, key, values, torch.zeros_like(values, dtype=torch.int32))
            with module.graph.inserting_before(readers[0]):
                grid: tuple[Any, ...] = (*_read(module, f"{home}.{key}"), TABLE.qmax)
        else:
            grid = (shared.args[1], shared.args[2], shared.args[5])
            for item in [item for item in grid[:2] if readers[0] < item]:
                readers[0].prepend(item)
        for node in readers:
            round_rows(module, node, *grid)
    module.recompile()


def weight_scale(module: TracedModule, name: str, nodes: list[fx.Node], schemes: Schemes) -> Tensor:
    """One scale an output channel: the largest magnitude over the largest integer.

    With 4 bits it is the one with the least squared error. It is never so small that the bias, in steps of
    input scale * weight scale, leaves int32. Where the scheme has groups, a linear layer's is ``(out, groups)``.
    """
    weight, scheme = get_tensor(module, name).detach(), schemes.weights
    assert scheme is not None
    if can_group(weight, scheme) and nodes[0].target in LINEAR:
        return row_scale(grouped(weight, scheme), scheme).reshape(len(weight), -1)
    scale = row_scale(weight.transpose(0, weight_axis(nodes[0])).flatten(1), scheme)
    for node in nodes if schemes.integer_bias else []:
        bias, quantizer = bias_of(node), input_quantizer(node)
        if bias is not None and quantizer is not None:
            step = get_tensor(module, str(quantizer.args[1].target))  # type: ignore[union-attr]
            least = get_tensor(module, str(bias.target)).detach().abs() / (step * BIAS_STEPS)
            scale = torch.maximum(scale, least.clamp(min=MIN_SCALE))
    return scale


def bias_of(node: fx.Node) -> fx.Node | None:
    """The parameter that an op with weights adds, if it has one."""
    value = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    return value if isinstance(value, fx.Node) and value.op == "get_attr" else None


def input_quantizer(node: fx.Node) -> fx.Node | None:
    """The fake quantizer whose result an op reads, seen through ops that do nothing."""
    value: Any = node.args[0]
    while isinstance(value, fx.Node) and is_identity(value):
        value = value.args[0]
    return value if isinstance(value, fx.Node) and value.target is FAKE_TENSOR else None


def _round_bias(module: TracedModule, node: fx.Node) -> None:
    """Round the bias to the steps that the integer kernel has: input scale * weight scale.

    The steps are fine, yet without this one result in some hundred falls on the other side of a rounding
    edge, and a deep network's prediction may follow. A matrix product of more than two dimensions has no
    bias of its own in ONNX: it is added in float afterwards.
    """
    bias, quantizer = bias_of(node), input_quantizer(node)
    product = node.target in LINEAR and node.meta["val"].dim() != 2
    if bias is None or quantizer is None or product:
        return
    scale, zero_point = node.args[1].args[1:3]  # type: ignore[union-attr]
    with module.graph.inserting_before(node):
        step = module.graph.call_function(torch.ops.aten.mul.Tensor, (quantizer.args[1], scale))
        rounded = module.graph.call_function(FAKE_CHANNEL, (bias, step, zero_point, 0, -BIAS_MAX, BIAS_MAX))
    step.meta["val"], rounded.meta["val"] = scale.meta["val"], bias.meta["val"]  # type: ignore[union-attr]
    if len(node.args) > 2:
        node.update_arg(2, rounded)
    else:
        node.update_kwarg("bias", rounded)


def _by_weight(nodes: list[fx.Node]) -> dict[str, list[fx.Node]]:
    """Ops by the name of their weight: one that is used twice gets one scale."""
    groups: dict[str, list[fx.Node]] = {}
    for node in nodes:
        groups.setdefault(str(weight_node(node).target), []).append(node)
    return groups


def free_key(taken: Container[str], key: str) -> str:
    """The key, unless another has it: ``conv.1.weight`` and ``conv_1.weight`` would share one."""
    keys = chain([key], (f"{key}_{number}" for number in count(2)))
    return next(free for free in keys if free not in taken)


def _store(module: TracedModule, home: str, key: str, scale: Tensor, zero_point: Tensor) -> None:
    holder = nn.Module()
    holder.register_buffer("scale", scale)
    holder.register_buffer("zero_point", zero_point)
    module.get_submodule(home).add_module(key, holder)


def _read(module: TracedModule, key: str) -> tuple[fx.Node, fx.Node]:
    """Nodes that read a quantizer's scale and zero point."""
    nodes = []
    for leaf in ("scale", "zero_point"):
        node = module.graph.get_attr(f"{key}.{leaf}")
        node.meta["val"] = get_tensor(module, f"{key}.{leaf}").to("meta")
        nodes.append(node)
    return nodes[0], nodes[1]


def _after(module: TracedModule, node: fx.Node, key: str, scheme: Scheme) -> None:
    """Everybody who read `node` reads its quantized value."""
    place = node
    if node.op == "placeholder":
        place = [item for item in module.graph.nodes if item.op == "placeholder"][-1]
    readers = list(node.users)
    with module.graph.inserting_after(place):
        anchor = module.graph.call_function(FAKE_TENSOR, (node,))
    with module.graph.inserting_before(anchor):
        scale, zero_point = _read(module, key)
    anchor.args = (node, scale, zero_point, scheme.qmin, scheme.qmax)
    anchor.meta["val"] = node.meta["val"]
    for reader in readers:
        reader.replace_input_with(node, anchor)


def _before(module: TracedModule, nodes: list[fx.Node], key: str, scheme: Scheme) -> None:
    """These ops read a quantized weight."""
    weight: fx.Node = nodes[0].args[1]  # type: ignore[assignment]
    with module.graph.inserting_before(nodes[0]):
        scale, zero_point = _read(module, key)
        groups = scale.meta["val"].dim() == 2
        axis = 1 if groups else weight_axis(nodes[0])
        quantized = module.graph.call_function(
            FAKE_GROUPS if groups else FAKE_CHANNEL,
            (weight, scale, zero_point, axis, scheme.qmin, scheme.qmax),
        )
    quantized.meta["val"] = weight.meta["val"]
    for node in nodes:
        node.update_arg(1, quantized)
