"""The proof of a surgery: the pruned model computes what the original does with those channels silenced.

The output of the pruned graph must equal that of the original with the removed channels zeroed at their
consumers. Ops that run over channels without a weight of their own (LayerNorm, softmax, a mean, the product of
queries and keys) are computed in the original over the positions that survive, with attention's old scale.
Parameters and BatchNorm statistics are drawn anew for this: in a fresh model they are ones and zeros, in a
sparse one nearly zero, and would hide a channel that was sliced at the wrong index.

Through many layers such weights can carry the rounding of float32 past 1e-5. A difference that is more than
rounding of a shallow net is therefore computed once more in float64, where a wrong index shows as before.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from lianzhi.graph import Graph, Groups, TracedModule, get_tensor
from lianzhi.graph.labels import Slot
from lianzhi.graph.module import adopt
from lianzhi.graph.rules import IN, NORM, SCALE, VARIANCE
from lianzhi.prune.rewrite import changes, rewritten, with_argument
from lianzhi.prune.slicing import Keep, sliced

ROUNDING = 1e-6  # a larger difference is computed again in float64


def largest_difference(graph: Graph, groups: Groups, removed: Tensor, *, seed: int = 0) -> float:
    """Largest |pruned − silenced original| over all outputs, each relative to its largest value."""
    found = _difference(graph, groups, removed, seed, wide=False)
    if found <= ROUNDING:
        return found
    try:
        return _difference(graph, groups, removed, seed, wide=True)
    except (RuntimeError, NotImplementedError):  # an op that has no float64, or makes float32 by itself
        return found


def _difference(graph: Graph, groups: Groups, removed: Tensor, seed: int, *, wide: bool) -> float:
    keep = groups.keep(removed)
    noisy = {name: _widened(tensor, wide) for name, tensor in noise(graph, groups, seed).items()}
    small = _named(groups, {name: sliced(tensor, keep.get(name, {})) for name, tensor in noisy.items()})
    silenced = {name: tensor.clone() for name, tensor in noisy.items()}
    for name, axes in keep.items():
        for axis, indices in axes.items():
            if IN in groups.flow.roles.get(Slot(name, axis), ()):
                gone = torch.ones(silenced[name].shape[axis], dtype=torch.bool)
                gone[indices] = False
                silenced[name].index_fill_(axis, _places(gone, silenced[name]), 0.0)
    traced = TracedModule(graph.module, rewritten(graph, groups, removed))
    adopt(traced, graph.module)
    args, kwargs = pytree.tree_map(lambda value: _widened(value, wide), random_inputs(graph, seed))
    touched = {
        node
        for node, entries in groups.flow.over.items()
        if any(bool(removed[groups.components.of[labels]].any()) for labels, _ in entries)
    }
    survivors = _Survivors(graph, groups, removed, touched, _named(groups, silenced), wide=wide)
    with torch.no_grad():
        reference = survivors.outputs(args, kwargs)
        pruned = _Runner(traced, small, wide=wide).outputs(args, kwargs)
    return difference(reference, pruned)


def _widened(value: Any, wide: bool) -> Any:
    """A floating-point tensor, or its type, in float64 if `wide`."""
    if not wide:
        return value
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


class _Runner(fx.Interpreter):
    """Runs a captured graph with other tensors in place of its own, in float64 if `wide`."""

    def __init__(self, module: fx.GraphModule, tensors: dict[str, Tensor], *, wide: bool) -> None:
        super().__init__(module)
        self.tensors, self.wide = tensors, wide

    def outputs(self, args: Any, kwargs: Any) -> Any:
        """The model's output, in the form that the model gives it."""
        inputs = pytree.tree_leaves((args, kwargs), is_leaf=lambda value: value is None)
        codegen = self.module.graph._codegen  # type: ignore[union-attr]
        return codegen.process_outputs(self.run(*inputs, enable_io_processing=False))

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = self.tensors.get(str(target))
        return super().get_attr(target, args, kwargs) if found is None else found

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self.wide:
            args, kwargs = pytree.tree_map(
                lambda value: _widened(value, not isinstance(value, Tensor)), (args, kwargs)
            )
        return super().call_function(target, args, kwargs)


class _Survivors(_Runner):
    """Runs the original graph; the `touched` ops over the positions that survive, zeros elsewhere."""

    def __init__(
        self,
        graph: Graph,
        groups: Groups,
        removed: Tensor,
        touched: set[fx.Node],
        tensors: dict[str, Tensor],
        *,
        wide: bool,
    ) -> None:
        super().__init__(graph.module, tensors, wide=wide)
        self.groups, self.removed, self.touched = groups, removed, touched
        self.changed: dict[fx.Node, dict[str, Any]] = {}
        for change in changes(graph, groups, removed):
            self.changed.setdefault(change.node, {})[change.name] = change.new

    def run_node(self, n: fx.Node) -> Any:
        if n not in self.touched:
            return super().run_node(n)
        args, kwargs = fx.map_arg(self._arguments(n), self._surviving)
        result = self.call_function(n.target, tuple(args), kwargs)
        if isinstance(result, Tensor):
            return self._embedded(
                result, [self.groups.gone(n, dim, self.removed) for dim in range(result.dim())]
            )
        return tuple(
            self._embedded(
                part, [self.groups.part_gone(n, i, dim, self.removed) for dim in range(part.dim())]
            )
            for i, part in enumerate(result)
        )

    def _arguments(self, node: fx.Node) -> tuple[list[Any], dict[str, Any]]:
        """An op's arguments, with those that the survivors change (attention keeps its old scale)."""
        args, kwargs = list(node.args), dict(node.kwargs)
        for name, new in self.changed.get(node, {}).items():
            args, kwargs = with_argument(node.target._schema.arguments, args, kwargs, name, new)  # type: ignore[union-attr]
        return args, kwargs

    def _surviving(self, node: fx.Node) -> Any:
        value = self.env[node]
        if isinstance(value, Tensor):
            for dim in range(value.dim()):
                gone = self.groups.gone(node, dim, self.removed)
                if bool(gone.any()) and value.shape[dim] == len(gone):
                    value = value.index_select(dim, _places(~gone, value))
        return value

    def _embedded(self, result: Tensor, gone: list[Tensor]) -> Tensor:
        for dim, lost in enumerate(gone):
            if bool(lost.any()):
                full = result.new_zeros([*result.shape[:dim], len(lost), *result.shape[dim + 1 :]])
                result = full.index_copy(dim, _places(~lost, result), result)
        return result


def _places(where: Tensor, tensor: Tensor) -> Tensor:
    """The indices at which a boolean is true, on the device of a tensor."""
    return torch.nonzero(where).reshape(-1).to(tensor.device)


def sliced_noise(graph: Graph, groups: Groups, keep: Keep, seed: int) -> dict[str, Tensor]:
    """`noise` as surgery leaves it, under every name."""
    noisy = noise(graph, groups, seed)
    return _named(groups, {name: sliced(tensor, keep.get(name, {})) for name, tensor in noisy.items()})


def noise(graph: Graph, groups: Groups, seed: int) -> dict[str, Tensor]:
    """Tensors of the model's shapes, drawn so that every channel is heard at the output.

    Weights keep the size of the signal (He), scales are near 1, statistics are off 0 and 1. A buffer that is
    no statistic (a mask, a table) keeps its values, with noise where channels are sliced.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {id(parameter) for parameter in graph.module.parameters()}
    result = {}
    for name in groups.aliases:
        tensor = get_tensor(graph.module, name).detach()
        roles = {role for axis in range(tensor.dim()) for role in groups.flow.roles.get(Slot(name, axis), ())}
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
            if roles & {VARIANCE, NORM, SCALE}:
                tensor = 0.5 + drawn.abs()
            elif id(get_tensor(graph.module, name)) in parameters:
                tensor = (
                    drawn * (2 * len(tensor) / max(1, tensor.numel())) ** 0.5
                    if tensor.dim() > 1
                    else 0.5 * drawn
                )
            elif roles:
                tensor = tensor + 0.5 * drawn
        result[name] = tensor
    return result


def _named(groups: Groups, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every alias of a tied tensor gets the same value."""
    return {alias: tensor for name, tensor in tensors.items() for alias in groups.aliases[name]}


def random_inputs(graph: Graph, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Noise of the example inputs' shapes; integers (token ids) as they are."""
    generator = torch.Generator().manual_seed(seed + 1)

    def draw(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value)
        return value

    return tuple(draw(value) for value in graph.args), {
        key: draw(value) for key, value in graph.kwargs.items()
    }


def difference(left: Any, right: Any) -> float:
    """Largest absolute difference of two outputs, over the largest value of the first.

    >>> difference((torch.zeros(2), [torch.full((1,), 4.0)]), (torch.zeros(2), [torch.full((1,), 5.0)]))
    0.25
    """
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.shape != right.shape or left.dtype != right.dtype:
            return float("inf")
        if left.numel() == 0 or not left.is_floating_point():
            return 0.0 if torch.equal(left, right) else float("inf")
        found = float((left - right).abs().max()) / max(1e-12, float(left.abs().max()))
        return float("inf") if math.isnan(found) else found
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return max((difference(left[key], right[key]) for key in left), default=0.0)
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)) and len(left) == len(right):
        return max((difference(a, b) for a, b in zip(left, right, strict=True)), default=0.0)
    return 0.0 if type(left) is type(right) and left == right else float("inf")
