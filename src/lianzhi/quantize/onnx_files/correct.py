"""Empirical bias correction (1906.04721, section 4.2) of a file: quantization must not shift the mean of a layer's output.

From the first layer to the last, each bias takes the mean of ``y - y^`` a channel, the float output less the quantized
one, so that a correction knows those before it. Layers without a bias (products) are left as they are: what follows
them, a LayerNorm above all, takes the shift away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lianzhi.quantize.batches import few
from lianzhi.quantize.insert import BIAS_MAX
from lianzhi.quantize.onnx_files.calibrate import Feeds, watched
from lianzhi.quantize.onnx_files.net import Net

BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})

SAMPLES = 8  # each holds many positions of a channel; more moved nothing

Shifts = dict[str, np.ndarray]  # by the name of a layer's output


def corrections(floating: Net, quantized: Any, nodes: list[Any], batches: list[Feeds]) -> Shifts:
    """What each of these layers of the float file adds to its bias; the biases of the quantized file are corrected.

    `nodes` are layers of the float file that are quantized; their twins stand in the same order.
    """
    read = few(batches, SAMPLES)
    twins = _twins(floating, quantized)
    pairs = [(node, twins[node.output[0]]) for node in nodes if has_bias(floating, node)]
    exact = _means(floating.proto, [node.output[0] for node, _ in pairs], read)
    found: Shifts = {}
    for node, twin in pairs:
        name = twin.output[0]
        stored = _Stored(quantized, twin)
        mean = _means(quantized, [name], read, alone=True).get(name)
        if mean is not None and node.output[0] in exact:
            found[node.output[0]] = stored.add(exact[node.output[0]] - mean)
    return found


def shifted(model: Any, shifts: Shifts) -> None:
    """Add corrections to the biases of a float model, in place; each layer gets a constant of its own."""
    import onnx

    net = Net(model)
    for node in net.nodes:
        shift = shifts.get(node.output[0]) if node.output else None
        if shift is not None:
            name = f"{node.input[2]}_of_{node.output[0]}"
            bias = np.asarray(net.array(node.input[2]), np.float64) + shift
            model.graph.initializer.append(onnx.numpy_helper.from_array(bias.astype(np.float32), name))
            node.input[2] = name


def has_bias(net: Net, node: Any) -> bool:
    """Whether a layer adds a constant a channel of its output."""
    bias = net.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return node.op_type in BIASED and bias is not None and bias.ndim == 1 and bias.dtype == np.float32


def _twins(floating: Net, quantized: Any) -> dict[str, Any]:
    """The layer of the quantized file for each output of a layer of the float file."""
    ours, theirs = (
        [node for node in nodes if node.op_type in BIASED] for nodes in (floating.nodes, quantized.graph.node)
    )
    return {node.output[0]: twin for node, twin in zip(ours, theirs, strict=True)}


def _means(model: Any, names: list[str], batches: list[Feeds], *, alone: bool = False) -> Shifts:
    """The mean of each channel, the second axis, over all batches."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    with watched(model, names, alone=alone) as run:
        for index, batch in enumerate(batches):
            for name, values in run(batch, index):
                channels = values.double().transpose(0, 1).flatten(1)
                sums[name] = sums.get(name, 0) + channels.sum(1)  # type: ignore[operator]
                counts[name] = counts.get(name, 0) + channels.shape[1]
    return {name: (total / counts[name]).numpy() for name, total in sums.items()}


class _Stored:
    """The bias of a layer of the quantized file: int32 behind a DequantizeLinear, or float."""

    def __init__(self, model: Any, node: Any) -> None:
        maker = next((item for item in model.graph.node if node.input[2] in item.output), None)
        names = [node.input[2]] if maker is None else list(maker.input[:2])
        self.tensors = [next(item for item in model.graph.initializer if item.name == name) for name in names]

    def add(self, shift: np.ndarray) -> np.ndarray:
        """Add, and return what was added, on the grid of the integers."""
        import onnx

        values, *steps = (onnx.numpy_helper.to_array(item) for item in self.tensors)
        if not steps:
            made = (values + shift).astype(np.float32)
        else:
            made = np.clip(np.round(values + shift / steps[0]), -BIAS_MAX, BIAS_MAX).astype(np.int32)
        self.tensors[0].CopyFrom(onnx.numpy_helper.from_array(made, self.tensors[0].name))
        added: np.ndarray = (made.astype(np.float64) - values) * (steps[0] if steps else 1.0)
        return added
