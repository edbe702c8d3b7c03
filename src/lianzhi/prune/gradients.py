"""What gradients say of a group's units over calibration data, contracted at once to small tensors.

First order: Σ w·∂L/∂w over a unit's slices of a tensor, one a batch. Second order: Σ h·w² with the diagonal of
the empirical Fisher matrix, h = mean over *samples* of (∂L/∂w)² (a batch's mean gradient squared would be
smaller by about the batch size). The model runs in eval mode; its ``grad`` fields are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lianzhi.errors import DataError, RecipeError
from lianzhi.graph import Graph, Group, Groups, device_of, in_eval, moved, split_inputs
from lianzhi.graph.labels import Slot
from lianzhi.prune import calibration

Loss = Callable[[Any, Any], Tensor]
BySlot = dict[Slot, Tensor]


class _Derivative:
    """The gradient of the loss for one batch, by the parameters' first names."""

    def __init__(self, graph: Graph, groups: Groups, loss: Loss) -> None:
        self.graph, self.loss = graph, loss
        own = dict(graph.module.named_parameters())
        floating = {
            name: own[name] for name in groups.aliases if name in own and own[name].is_floating_point()
        }
        self.tensors = {name: tensor.detach().requires_grad_() for name, tensor in floating.items()}
        there = {name for name, _ in graph.source.named_parameters(remove_duplicate=False)}
        self.every = {
            alias: self.tensors[name]
            for name in self.tensors
            for alias in groups.aliases[name]
            if alias in there
        }

    def __call__(self, index: int, inputs: Any, labels: Any) -> dict[str, Tensor]:
        args, kwargs = split_inputs(inputs)
        with torch.enable_grad():
            try:
                with in_eval(self.graph.source):  # not the graph, which is of the length of its example
                    outputs = functional_call(self.graph.source, self.every, args, kwargs)
            except (RuntimeError, TypeError) as error:
                fixed = "" if self.graph.dynamic_batch else " (it fixes the batch size)"
                raise DataError(
                    f"calibration batch {index} does not run through the model{fixed}: {str(error).splitlines()[0]}"
                ) from error
            try:
                value = self.loss(outputs, labels)
            except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise DataError(
                    f"calibration batch {index}: loss(outputs, labels) fails on what the model gives and the batch's "
                    f"labels ({type(error).__name__}: {reason})"
                ) from error
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise RecipeError("loss(outputs, labels) must give one number that depends on the outputs")
            if not bool(torch.isfinite(value)):
                raise DataError(f"calibration batch {index}: the loss is {float(value.detach())}")
            found = torch.autograd.grad(value.reshape(()), list(self.tensors.values()), allow_unused=True)
        result = {name: grad for name, grad in zip(self.tensors, found, strict=True) if grad is not None}
        for name, grad in result.items():
            if not bool(torch.isfinite(grad).all()):
                raise DataError(f"calibration batch {index}: the gradient of '{name}' is not finite")
        return result


def first_order(
    graph: Graph, groups: Groups, batches: Iterable[Any], example_inputs: Any, loss: Loss
) -> dict[str, BySlot]:
    """Σ w·∂L/∂w of each unit, tensor by tensor: (batches, units) by group and slot."""
    derivative = _Derivative(graph, groups, loss)
    device = device_of(graph.module)
    rows: dict[tuple[str, Slot], list[Tensor]] = {}
    for index, inputs, labels in calibration.read(batches, example_inputs):
        _require_labels(index, labels)
        grads = derivative(index, *moved((inputs, labels), device))
        products = {name: derivative.tensors[name].detach() * grad for name, grad in grads.items()}
        for group in groups.groups:
            for slot in group.members:
                if slot.tensor in products:
                    rows.setdefault((group.name, slot), []).append(
                        by_unit(products[slot.tensor], group, slot)
                    )
    return _by_group({key: torch.stack(values) for key, values in rows.items()})


def second_order(
    graph: Graph, groups: Groups, batches: Iterable[Any], example_inputs: Any, loss: Loss
) -> dict[str, BySlot]:
    """Σ h·w² of each unit, tensor by tensor: (units,) by group and slot. One backward pass a sample."""
    derivative = _Derivative(graph, groups, loss)
    device = device_of(graph.module)
    squares: dict[str, Tensor] = {}
    samples = 0
    for index, inputs, labels in calibration.read(batches, example_inputs):
        _require_labels(index, labels)
        count = calibration.batch_size(inputs)
        whole = moved((inputs, labels), device)
        for place in range(count):
            one = calibration.sample(whole, place, count)
            for name, grad in derivative(index, *one).items():
                if name in squares:
                    squares[name].addcmul_(grad, grad)
                else:
                    squares[name] = grad.square()
        samples += count
    found = {}
    for group in groups.groups:
        for slot in group.members:
            if slot.tensor in squares:
                weight = derivative.tensors[slot.tensor].detach()
                found[group.name, slot] = (
                    by_unit(squares[slot.tensor] * weight.square(), group, slot) / samples
                )
    return _by_group(found)


def by_unit(tensor: Tensor, group: Group, slot: Slot) -> Tensor:
    """Sum a tensor over the slices of each unit: (units,)."""
    others = [dim for dim in range(tensor.dim()) if dim != slot.axis]
    sums = tensor.double().sum(others) if others else tensor.double()
    return sums.cpu()[group.members[slot]].sum(1)


def _by_group(found: dict[tuple[str, Slot], Tensor]) -> dict[str, BySlot]:
    result: dict[str, BySlot] = {}
    for (name, slot), values in found.items():
        result.setdefault(name, {})[slot] = values
    return result


def _require_labels(index: int, labels: Any) -> None:
    if labels is None:
        raise DataError(
            f"calibration batch {index} has no labels; a criterion on gradients reads (batch, labels)"
        )
