"""Empirical bias correction (1906.04721, section 4.2): quantization must not shift the mean of a layer's output.

Each channel's bias takes the mean over the calibration data of ``y - y^``, the float output less the quantized one,
from the first layer to the last, so that a layer's correction knows those before it. The authors' analytic form
needs BatchNorm's statistics; this one needs calibration data. Where a ReLU or another clamp f follows, the bias takes
of the shares 0, 1/4, … 1 of that mean the one with the least ``|f(y) - f(y^ + b)|^2``: with few bits the full mean
lifts values over the clamp that ought to stay under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from lianzhi.graph import TracedModule, get_tensor
from lianzhi.quantize.affine import along
from lianzhi.quantize.placement import layer_name, tail
from lianzhi.quantize.placement.ops import LINEAR
from lianzhi.quantize.ptq.technique import CORRECT, Skipped, TechniqueConfig, registry
from lianzhi.quantize.ptq.walk import evaluate, layers, run

Clamp = Callable[[Tensor], Tensor]
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

aten = torch.ops.aten


class BiasCorrection(TechniqueConfig):
    """No options."""

    stage: ClassVar[int] = CORRECT
    takes_parts: ClassVar[bool] = True


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
            expected = run(floating, layer.exact_node, layer.exact)
            found = run(quantized, layer.node, layer.inputs)
            clamp = clamp_after(layer.exact_node)
            before = _added(quantized, layer.node)
            get_tensor(quantized, bias).add_(bias_correction(expected, found, axis=axis, clamp=clamp))
            shift = along(_added(quantized, layer.node) - before, found[0], axis)
            layer.give([values.add_(shift) for values in found], expected)
    return skipped


def _added(module: TracedModule, node: fx.Node) -> Tensor:
    """What an op adds, rounded as it is; a copy."""
    bias = node.args[2] if len(node.args) > 2 else node.kwargs["bias"]
    added: Tensor = evaluate(module, bias)
    return added.clone()


def bias_correction(
    expected: list[Tensor], found: list[Tensor], *, axis: int = 1, clamp: Clamp | None = None
) -> Tensor:
    """What is to be added to a bias: the mean difference of each channel over all batches, or a share of it.

    >>> exact, rounded = torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([[0.0, 2.0], [1.0, 2.0]])
    >>> bias_correction([exact], [rounded])
    tensor([1.5000, 0.0000])

    With `clamp` it is the share that is best behind it:

    >>> exact, rounded = torch.tensor([[-4.0], [-4.0], [20.0]]), torch.tensor([[-1.0], [-1.0], [2.0]])
    >>> bias_correction([exact], [rounded], clamp=lambda values: values.clamp(0, 6))  # of 4
    tensor([2.])
    """
    axis %= found[0].dim()
    count = sum(exact.numel() // exact.shape[axis] for exact in expected)
    differences = (exact - rounded for exact, rounded in zip(expected, found, strict=True))
    mean = (_by_channel(differences, axis, lambda item, dims: item.sum(dims).double()) / count).float()
    if clamp is None:
        return mean

    def error(share: float) -> Tensor:
        shift = along(share * mean, found[0], axis)
        wrong = (clamp(rounded + shift) - target for rounded, target in zip(found, targets, strict=True))
        return _by_channel(wrong, axis, _squares)

    targets = [clamp(exact) for exact in expected]
    errors = torch.stack([error(share) for share in SHARES])
    return mean * torch.tensor(SHARES)[errors.argmin(0)]


def _by_channel(items: Iterable[Tensor], axis: int, reduce: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """The sum over all that is not the channel, in float64: first over what lies behind it, which is one run of memory."""
    total: Tensor | None = None
    for item in items:
        before, behind = list(range(axis)), list(range(axis + 1, item.dim()))
        part = reduce(item, behind or before)
        part = part.sum(before) if behind and before else part
        total = part if total is None else total + part
    assert total is not None
    return total


def _squares(values: Tensor, dims: list[int]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=dims)
    return norm.double().square()


def clamp_after(node: fx.Node) -> Clamp | None:
    """The clamp that alone reads what an op gives, as a function."""
    reader = tail(node)
    if reader is node:
        return None
    target: Any = reader.target
    aside = {aten.relu_.default: aten.relu.default, aten.relu6_.default: aten.relu6.default}
    aside |= {aten.hardtanh_.default: aten.hardtanh.default, aten.clamp_.default: aten.clamp.default}
    return lambda values: aside.get(target, target)(values, *reader.args[1:], **reader.kwargs)


def stored_bias(node: fx.Node) -> str | None:
    """The name of the parameter that an op adds, seen through the rounding of it; None if it adds nothing."""
    value: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    while isinstance(value, fx.Node) and value.op == "call_function" and value.args:
        value = value.args[0]
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None
