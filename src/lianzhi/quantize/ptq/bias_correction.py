"""Empirical bias correction (1906.04721, section 4.2): quantization must not shift the mean of a layer's output.

Each channel's bias takes the mean over the calibration data of ``y - y^``, the float output less the quantized one,
from the first layer to the last, so that a layer's correction knows those before it. The authors' analytic form
needs BatchNorm's statistics; this one needs calibration data.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.placement import layer_name
from lianzhi.quantize.placement.ops import LINEAR
from lianzhi.quantize.ptq.technique import CORRECT, Skipped, TechniqueConfig, registry
from lianzhi.quantize.ptq.walk import layers, run


class BiasCorrection(TechniqueConfig):
    """No options."""

    stage: ClassVar[int] = CORRECT


@registry.register(
    "bias_correction",
    "biases take back the shift of the mean",
    paper="1906.04721",
    config=BiasCorrection,
)
def apply(
    floating: TracedModule,
    quantized: TracedModule,
    batches: list[Any],
    names: list[str],
    options: BiasCorrection,
) -> Skipped:
    """Correct the biases of these ops, in place; a layer without a bias is left as it is."""
    skipped = []
    for layer in layers(floating, quantized, batches, names):
        bias = stored_bias(layer.node)
        if bias is None:
            skipped.append((layer_name(layer.node), "it has no bias"))
            continue
        axis = -1 if layer.node.target in LINEAR else 1
        with torch.no_grad():
            expected = [run(floating, layer.exact_node, value) for value in layer.exact]
            found = [run(quantized, layer.node, value) for value in layer.inputs]
            get_tensor(quantized, bias).add_(bias_correction(expected, found, axis=axis))
    return skipped


def bias_correction(expected: list[Tensor], found: list[Tensor], *, axis: int = 1) -> Tensor:
    """What is to be added to a bias: the mean difference of each channel over all batches.

    >>> bias_correction([torch.tensor([[1.0, 2.0], [3.0, 2.0]])], [torch.tensor([[0.0, 2.0], [1.0, 2.0]])])
    tensor([1.5000, 0.0000])
    """
    differences = [
        (exact.double() - rounded.double()).movedim(axis, 0).flatten(1)
        for exact, rounded in zip(expected, found, strict=True)
    ]
    count = sum(item.shape[1] for item in differences)
    return (sum(item.sum(1) for item in differences) / count).float()  # type: ignore[union-attr]


def stored_bias(node: fx.Node) -> str | None:
    """The name of the parameter that an op adds, seen through the rounding of it; None if it adds nothing."""
    value: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    while isinstance(value, fx.Node) and value.op == "call_function" and value.args:
        value = value.args[0]
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None
