"""From a quantized module to one that trains, and back.

The graph stays the same op for op, so that the way back is a copy of tensors by name: weights, biases and norms as
they were trained, scales times what was learned of them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import TracedModule, get_tensor, replace_tensor
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_TENSOR
from lianzhi.quantize.model import QuantizedModel
from lianzhi.quantize.placement.ops import LINEAR
from lianzhi.quantize.qat.lsq import LEAST, lsq, relative
from lianzhi.quantize.qat.partial import (
    CONVOLUTIONS,
    important_channels,
    partial_convolution,
    partial_linear,
)

FACTOR = "factor"  # beside a scale: what is learned of it
# beside a weight of which some rows train, and beside its scale: those rows, and where they are
ROWS, INDEX, ROUNDED = "_rows", "_index", "_rounded"


def make_trainable(quantized: QuantizedModel, *, lsq: bool = True, channels: float = 1.0) -> TracedModule:
    """A copy of the quantized module for a training loop; `trained` takes it back.

    ```python
    module = quantize.make_trainable(quantized)
    train.fit(module, task, train.TrainOptions(epochs=1, lr=2e-4, clip=1.0, decay_all=False))
    quantized = quantize.trained(quantized, module)
    ```

    With `lsq` scales are learned. `channels` below 1 trains that share of each layer's output channels, those of
    the largest weights, and leaves the others and their scales as they are.

    Raises:
        RecipeError: `channels` is no share.
        GraphError: nothing in the module is quantized.
    """
    if not 0 < channels <= 1 or math.isnan(channels):
        raise RecipeError(f"channels: {channels} is no share of a layer's channels; give one in (0, 1]")
    module = copy.deepcopy(quantized.model)
    nodes = [node for node in module.graph.nodes if node.target in (FAKE_TENSOR, FAKE_CHANNEL)]
    if not nodes:
        raise GraphError("no layer is quantized, so there is nothing to train for; the report says why")
    for node in nodes:
        if channels < 1 and _trains_partly(module, node):
            _learn_rows(module, node, channels, learned=lsq)
        else:
            _learn(module, node, learned=lsq)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module


def trained(quantized: QuantizedModel, module: TracedModule) -> QuantizedModel:
    """The quantized model with what `module`, made of it by `make_trainable`, has learned.

    Raises:
        GraphError: the module was made of another model.
    """
    result = copy.deepcopy(quantized.model)
    names = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    own = {**dict(result.named_parameters()), **dict(result.named_buffers())}
    for name, old in own.items():
        if name not in names or get_tensor(module, name).shape != old.shape:
            raise GraphError(
                f"'{name}' is not in the trained module; give one made from this quantized model"
            )
        replace_tensor(result, name, _learned(module, name, names))
    report = {**quantized.report, "values": [dict(row) for row in quantized.report["values"]]}
    scales = {
        node.args[0].name: get_tensor(result, str(node.args[1].target))
        for node in result.graph.nodes
        if node.target is FAKE_TENSOR
    }
    for row in report["values"]:
        row["scale"] = float(scales[row["name"]])
    report["notes"] = [
        *report["notes"],
        "trained after calibration; ratios and ranges are those of calibration, scales those of training",
    ]
    return replace(quantized, model=result, report=report)


def same_grid(first: QuantizedModel, second: QuantizedModel) -> bool:
    """Whether two quantized models are the same graph with the same numbers, so that one training serves both."""
    ours, theirs = (
        [(node.name, str(node.target), str(node.args)) for node in item.model.graph.nodes]
        for item in (first, second)
    )
    states = first.model.state_dict(), second.model.state_dict()
    return (
        ours == theirs
        and states[0].keys() == states[1].keys()
        and all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    )


def round_fixed(values: Tensor, step: Tensor, zero_point: Tensor, axis: int, qmin: int, qmax: int) -> Tensor:
    """A bias in the steps of its kernel, or rows of a table in their own: no scale learns from it.

    The steps of a bias follow the scales of input and weight. A table's stay as they were, for a step sees few of its rows.
    """
    result: Tensor = FAKE_CHANNEL(values, step.detach(), zero_point, axis, qmin, qmax)
    return result


def _learn(module: TracedModule, node: fx.Node, *, learned: bool) -> None:
    """Make a fake quantizer one whose scale has gradients."""
    value, scale, zero_point, *rest = node.args
    assert isinstance(scale, fx.Node)
    if scale.op != "get_attr":
        node.target = round_fixed
        return
    axis, qmin, qmax = rest if node.target is FAKE_CHANNEL else (0, *rest)
    node.target, node.args = lsq, (value, scale, zero_point, qmin, qmax, axis)
    if learned:
        path = str(scale.target).rpartition(".")[0]
        holder = module.get_submodule(path)
        if FACTOR not in holder._parameters:
            holder.register_parameter(
                FACTOR, nn.Parameter(torch.ones_like(get_tensor(module, str(scale.target))))
            )
        with module.graph.inserting_after(scale):
            factor = module.graph.get_attr(f"{path}.{FACTOR}")
        with module.graph.inserting_after(factor):
            product = module.graph.call_function(relative, (scale, factor))
        scale.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)


def _trains_partly(module: TracedModule, node: fx.Node) -> bool:
    """Whether a fake quantizer is that of a weight which layers read, and nothing else does, and which may train."""
    source: Any = node.args[0]
    if node.target is not FAKE_CHANNEL or source.op != "get_attr" or node.args[3] != 0:
        return False
    weight = get_tensor(module, str(source.target))
    reads = [user for item in module.graph.nodes if item.target == source.target for user in item.users]
    layers = all(user.target in CONVOLUTIONS or user.target in LINEAR for user in node.users)
    return weight.dim() > 1 and weight.requires_grad and len(reads) == 1 and layers


def _learn_rows(module: TracedModule, node: fx.Node, share: float, *, learned: bool) -> None:
    """Keep a weight, rounded once, as a constant, all but its important rows: these learn, and their scales."""
    source, scale, zero_point, _, qmin, qmax = node.args
    name, home = str(source.target), str(scale.target).rpartition(".")[0]  # type: ignore[union-attr]
    weight, steps = get_tensor(module, name), get_tensor(module, f"{home}.scale")
    zeros = get_tensor(module, str(zero_point.target))  # type: ignore[union-attr]
    path, _, leaf = name.rpartition(".")
    holder, scales = module.get_submodule(path), module.get_submodule(home)
    index = important_channels(weight, share)
    rounded = FAKE_CHANNEL(weight.detach(), steps, zeros, 0, qmin, qmax)
    weight.requires_grad_(False)
    holder.register_parameter(leaf + ROWS, nn.Parameter(weight.detach()[index].clone()))
    holder.register_buffer(leaf + ROUNDED, rounded)
    scales.register_buffer(INDEX, index)
    scales.register_buffer("scale" + ROWS, steps[index])
    scales.register_buffer("zero_point" + ROWS, zeros[index])
    with module.graph.inserting_before(node):
        rows, whole, where, step, zero = (
            module.graph.get_attr(item)
            for item in (
                name + ROWS,
                name + ROUNDED,
                f"{home}.{INDEX}",
                f"{home}.scale{ROWS}",
                f"{home}.zero_point{ROWS}",
            )
        )
        if learned:
            scales.register_parameter(FACTOR, nn.Parameter(torch.ones_like(steps[index])))
            factor = module.graph.get_attr(f"{home}.{FACTOR}")
            step = module.graph.call_function(relative, (step, factor))
        quantized = module.graph.call_function(lsq, (rows, step, zero, qmin, qmax, 0))
        merged = module.graph.call_function(torch.index_copy, (whole, 0, where, quantized))
        every = module.graph.call_function(torch.index_copy, (scale, 0, where, step))
    node.replace_all_uses_with(merged)
    module.graph.erase_node(node)
    scale.replace_all_uses_with(every, delete_user_cb=lambda user: user is not every)  # type: ignore[union-attr]
    for reader in list(merged.users):
        _read_partly(reader, where)


def _read_partly(node: fx.Node, rows: fx.Node) -> None:
    """The op that reads the weight computes the gradient of these rows alone, where that is cheaper."""
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if node.target in LINEAR:
        node.target, node.args, node.kwargs = partial_linear, (*node.args[:2], bias, rows), {}
        return
    dims = CONVOLUTIONS[node.target]
    given = [*node.args[3:], *([1], [0], [1], 1)[len(node.args[3:]) :]]
    if given[3] != 1 or node.kwargs:
        return
    where = [list(item) * dims if len(item) == 1 else list(item) for item in given[:3]]  # type: ignore[arg-type]
    node.target, node.args = partial_convolution, (*node.args[:2], bias, rows, *where)


def _learned(module: TracedModule, name: str, names: set[str]) -> Tensor:
    """A tensor of the quantized model as it is after training."""
    value = get_tensor(module, name).detach().clone()
    path, _, leaf = name.rpartition(".")
    if leaf == "scale" and f"{path}.{FACTOR}" in names:
        factor = get_tensor(module, f"{path}.{FACTOR}").detach().clamp(min=LEAST)
        index: Any = get_tensor(module, f"{path}.{INDEX}") if f"{path}.{INDEX}" in names else ...
        value[index] = value[index] * factor
    elif name + ROWS in names and name + ROUNDED in names:
        home = next(str(node.args[2].target) for node in module.graph.nodes if _merges(node, name))  # type: ignore[union-attr]
        value[get_tensor(module, home)] = get_tensor(module, name + ROWS).detach()
    return value


def _merges(node: fx.Node, name: str) -> bool:
    """Whether a node puts the rows of this weight into it."""
    source: Any = node.args[0] if node.target is torch.index_copy else None
    return isinstance(source, fx.Node) and source.target == name + ROUNDED
