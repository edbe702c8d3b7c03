"""The proof of a surgery: the pruned model computes what the original does with those channels silenced.

The output of the pruned graph must equal that of the original with the removed channels zeroed at their
consumers. Parameters and BatchNorm statistics get noise first: in a fresh model they are ones and zeros,
and would hide a channel that was sliced at the wrong index.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lianzhi.graph import Graph, TracedModule
from lianzhi.graph.groups import Groups
from lianzhi.graph.rules import aten
from lianzhi.prune.surgery import Keep, sliced

_NORMS = (aten.batch_norm.default,)


def largest_difference(graph: Graph, groups: Groups, keep: Keep, traced: TracedModule, *, seed: int = 0) -> float:
    """Largest |pruned − silenced original| over all outputs, relative to the largest output (at least 1)."""
    noisy = noise(graph, groups, seed)
    silenced = {name: tensor.clone() for name, tensor in noisy.items()}
    for name, axis in consumers(graph, groups):
        indices = keep.get(name, {}).get(axis)
        if indices is not None:
            gone = torch.ones(silenced[name].shape[axis], dtype=torch.bool)
            gone[indices] = False
            silenced[name].index_fill_(axis, torch.nonzero(gone).reshape(-1), 0.0)
    small = {name: sliced(tensor, keep.get(name, {})) for name, tensor in noisy.items()}
    args, kwargs = random_inputs(graph, seed)
    graph.module.eval()
    traced.eval()
    with torch.no_grad():
        reference = functional_call(graph.module, _named(groups, silenced), args, kwargs)
        pruned = functional_call(traced, _named(groups, small), args, kwargs)
    return difference(reference, pruned)


def noise(graph: Graph, groups: Groups, seed: int) -> dict[str, Tensor]:
    """The model's tensors with noise on every floating one; variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    variances = {
        groups.flow.tensor(node.args[4]) for node in graph.nodes if node.op == "call_function" and node.target in _NORMS
    }
    result = {}
    named = [*graph.module.named_parameters(), *graph.module.named_buffers()]
    for name, tensor in named:
        if name not in groups.aliases or not tensor.is_floating_point():
            continue
        values = tensor.detach().clone()
        scale = values.std(unbiased=False) if values.numel() > 1 else values.abs().mean()
        spread = torch.randn(values.shape, generator=generator).to(values) * (0.2 * scale + 0.02)
        result[name] = (values.abs() + spread.abs() + 0.01) if name in variances else values + spread
    return result


def _named(groups: Groups, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every alias of a tied tensor gets the same value."""
    return {alias: tensor for name, tensor in tensors.items() for alias in groups.aliases[name]}


def consumers(graph: Graph, groups: Groups) -> list[tuple[str, int]]:
    """The (tensor, axis) pairs by which weighted ops read channels."""
    found: list[tuple[str, int]] = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        short = str(node.target).split(".")[1]
        if short in ("linear", "conv1d", "conv2d", "conv3d"):
            name, axis = groups.flow.tensor(node.args[1]), 1
        elif short.startswith("conv_transpose"):
            name, axis = groups.flow.tensor(node.args[1]), 0
        else:
            continue
        if name is not None:
            found.append((name, axis))
    return list(dict.fromkeys(found))


def random_inputs(graph: Graph, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Noise of the example inputs' shapes; integers (token ids) as they are."""
    generator = torch.Generator().manual_seed(seed + 1)

    def draw(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value)
        return value

    return tuple(draw(value) for value in graph.args), {key: draw(value) for key, value in graph.kwargs.items()}


def difference(left: Any, right: Any) -> float:
    """Largest absolute difference of two outputs, over the largest reference value or 1."""
    if isinstance(left, Tensor):
        if left.shape != right.shape:
            return float("inf")
        if left.numel() == 0 or not left.is_floating_point():
            return 0.0 if torch.equal(left, right) else float("inf")
        scale = max(1.0, float(left.abs().max()))
        return float((left - right).abs().max()) / scale
    if isinstance(left, dict):
        return max((difference(left[key], right[key]) for key in left), default=0.0)
    if isinstance(left, (tuple, list)):
        return max((difference(a, b) for a, b in zip(left, right, strict=True)), default=0.0)
    return 0.0

