"""Give the channels of what layers read ranges of like size, in a file, without changing what it computes.

A value has one scale, so that a channel which is a hundred times smaller than the largest keeps two or three of the 255
steps. A factor a channel can move from the op that makes the value (a layer, or constants that scale and shift, as a
LayerNorm or a learned affine end) into the layers that read it, through what passes a positive factor on. The factor is
`ptq.smoothquant` (2211.10438) of what is read and of the weights that read it. Weights have a scale a channel and lose
far less than values, so they take three quarters of it; depthwise convolutions pay nothing and take all, which makes
the channels alike (1906.04721).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lianzhi.quantize.batches import few
from lianzhi.quantize.onnx_files.calibrate import Feeds, watched
from lianzhi.quantize.onnx_files.net import Net, attribute
from lianzhi.quantize.ptq import smoothquant
from lianzhi.quantize.report import REPORT_SAMPLES

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
PASSES = frozenset({"Relu", "Identity"})
POOLS = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool"}
)  # the channels of these are the second axis
ALPHA = 0.75
LEAST = (
    1e-3  # a channel that is smaller than this share of the largest is not enlarged further: it may be noise
)


@dataclass(frozen=True)
class Part:
    """A constant that takes the factor: its axis of channels, and how often each channel stands on it."""

    name: str
    axis: int
    repeats: int = 1


@dataclass(frozen=True)
class Group:
    """What layers read, whose channels can change their size: constants to divide, weights to multiply."""

    value: str
    axis: int  # of the value: 1 for convolutions, -1 for products
    channels: int
    makers: list[Part]
    readers: list[Part]
    depthwise: bool


def equalize(model: Any, batches: list[Feeds]) -> list[str]:
    """Scale the channels of all groups of a model, in place; return the values whose channels changed."""
    net = Net(model)
    found = list(groups(net))
    largest = _largest(model, found, few(batches, REPORT_SAMPLES)) if found else {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = [group for group in found if len(largest.get(group.value, ())) == group.channels]
    for group in changed:
        factor = _factor(Net(model), group, largest[group.value])
        for part in group.makers:
            _scale(tensors[part.name], part, 1 / factor)
        for part in group.readers:
            _scale(tensors[part.name], part, factor)
    return [group.value for group in changed]


def groups(net: Net) -> Iterator[Group]:
    """Every value that a factor a channel can be moved over."""
    for node in net.nodes:
        value, layers = _readers(net, node) if node.op_type in LAYERS | {"Mul", "Add"} else ("", [])
        axes, channels = {_axis(layer) for layer in layers}, {_channels(net, layer) for layer in layers}
        if len(axes) != 1 or len(channels) != 1:
            continue
        axis, count = axes.pop(), channels.pop()
        makers = _makers(net, node, axis, count)
        if makers:
            depthwise = all(_is_depthwise(layer) for layer in layers)
            yield Group(value, axis, count, makers, [_taken(net, layer) for layer in layers], depthwise)


def _readers(net: Net, node: Any) -> tuple[str, list[Any]]:
    """What the layers behind a node read, and these layers; none if somebody else reads it too."""
    name, pooled = node.output[0], False
    while net.read_once(name) and net.readers[name][0].op_type in PASSES | POOLS:
        node = net.readers[name][0]
        pooled, name = pooled or node.op_type in POOLS, node.output[0]
    layers = net.readers.get(name, [])
    shown = name in net.outputs | net.nested or not net.is_float(name) or len(node.output) > 1
    if shown or not all(layer.input[0] == name and _can_take(net, layer) for layer in layers):
        return name, []
    return name, [] if pooled and any(_axis(layer) != 1 for layer in layers) else layers


def _makers(net: Net, node: Any, axis: int, channels: int) -> list[Part]:
    """The constants behind a value that take the factor, or none; nobody else reads what is between them."""
    parts: list[Part] = []
    while node.op_type not in LAYERS:
        rank = net.ranks.get(node.output[0], 0)
        held = [name for name in node.input if not net.computed(name)]
        if (
            node.op_type not in ("Mul", "Add")
            or len(held) != 1
            or not _by_channel(net, held[0], axis, channels, rank)
        ):
            return []
        parts.append(Part(held[0], axis if axis < 0 else axis - rank))
        if node.op_type == "Mul":
            return parts
        before = next(name for name in node.input if net.computed(name))
        if before not in net.makers or not net.read_once(before) or net.ranks.get(before) != rank:
            return []
        node = net.makers[before]
    constants, out = [name for name in node.input[1:] if name], _out_axis(node)
    if _axis(node) != axis or not all(_own(net, name) for name in constants):
        return []
    shapes = [net.array(name).shape for name in constants]  # type: ignore[union-attr]
    if shapes[0][out] != channels or any(shape != (channels,) for shape in shapes[1:]):
        return []
    return [*parts, Part(constants[0], out), *(Part(name, 0) for name in constants[1:])]


def _by_channel(net: Net, name: str, axis: int, channels: int, rank: int) -> bool:
    """Whether a constant is one number, or one a channel."""
    value = net.array(name)
    if value is None or not _own(net, name) or value.ndim > rank:
        return False
    wanted = [1] * rank
    wanted[axis] = channels
    return value.size == 1 or [1] * (rank - value.ndim) + list(value.shape) == wanted


def _own(net: Net, name: str) -> bool:
    """Whether a name is a constant of float32 that one node reads."""
    value = net.array(name)
    return value is not None and value.dtype == np.float32 and value.size > 0 and net.read_once(name)


def _can_take(net: Net, layer: Any) -> bool:
    """Whether a reader is a layer with a weight of its own, whose input channels can be scaled."""
    if layer.op_type not in LAYERS or not _own(net, layer.input[1]):
        return False
    shape = net.array(layer.input[1]).shape  # type: ignore[union-attr]
    if layer.op_type == "Conv":
        return attribute(layer, "group", 1) == 1 or shape[1] == 1
    return len(shape) == 2 and not attribute(layer, "transA", 0)


def _axis(layer: Any) -> int:
    return 1 if layer.op_type == "Conv" else -1


def _out_axis(layer: Any) -> int:
    """The axis of the weight that holds the output channels."""
    return 0 if layer.op_type == "Conv" or attribute(layer, "transB", 0) else 1


def _is_depthwise(layer: Any) -> bool:
    return bool(layer.op_type == "Conv" and attribute(layer, "group", 1) > 1)


def _channels(net: Net, layer: Any) -> int:
    """How many channels a layer reads."""
    shape = net.array(layer.input[1]).shape  # type: ignore[union-attr]
    return int(attribute(layer, "group", 1) if _is_depthwise(layer) else shape[1 - _out_axis(layer)])


def _taken(net: Net, layer: Any) -> Part:
    """The weight of a layer that reads the value."""
    if _is_depthwise(layer):
        weight = net.array(layer.input[1])
        return Part(layer.input[1], 0, len(weight) // _channels(net, layer))  # type: ignore[arg-type]
    return Part(layer.input[1], 1 - _out_axis(layer))


def _largest(model: Any, found: list[Group], batches: list[Feeds]) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel of what is read."""
    axes = {group.value: group.axis for group in found}
    largest: dict[str, np.ndarray] = {}
    with watched(model, list(axes)) as run:
        for index, batch in enumerate(batches):
            for name, values in run(batch, index):
                seen = values.abs().transpose(0, axes[name]).flatten(1).amax(1).numpy()
                largest[name] = np.maximum(largest.get(name, 0), seen)
    return {name: item for name, item in largest.items() if np.isfinite(item).all()}


def _factor(net: Net, group: Group, largest: np.ndarray) -> np.ndarray:
    """What each channel is divided by."""
    inputs = _shares(largest)
    if group.depthwise:
        return torch.where(inputs > 0, inputs, 1.0).numpy()
    columns = []
    for part in group.readers:
        weight = np.moveaxis(np.abs(np.asarray(net.array(part.name), np.float64)), part.axis, 0)
        columns.append(_shares(weight.reshape(group.channels, -1).max(1)))
    return smoothquant(inputs, torch.stack(columns).amax(0), ALPHA).numpy()


def _shares(largest: np.ndarray) -> torch.Tensor:
    """Magnitudes as shares of the largest; 0 stays 0."""
    shares = torch.from_numpy(np.asarray(largest, np.float64) / max(float(largest.max()), 1e-30))
    return torch.where(shares > 0, shares.clamp(min=LEAST), 0.0)


def _scale(tensor: Any, part: Part, factor: np.ndarray) -> None:
    """Multiply a constant channel by channel; one number becomes one a channel."""
    import onnx

    values = np.asarray(onnx.numpy_helper.to_array(tensor), np.float64)
    shape = [1] * max(values.ndim, -part.axis)
    shape[part.axis] = len(factor) * part.repeats
    scaled = values * np.repeat(factor, part.repeats).reshape(shape)
    tensor.CopyFrom(onnx.numpy_helper.from_array(scaled.astype(np.float32), tensor.name))
