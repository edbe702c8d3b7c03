"""How a student's blocks are called: which arguments belong to samples, and which parameters come after the blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi.distill.methods.replacing import Stack
from lianzhi.errors import GraphError
from lianzhi.graph import device_of, in_eval, moved
from lianzhi.train.default_step import call


def note_shared(stack: Stack, example_inputs: Any) -> None:
    """Find which arguments of blocks are no sample's own, so that a batch can be parted: those that do not grow with it.

    Raises:
        GraphError: the hidden state does not, since its first axis is not the batch, or a layer runs more than once.
    """
    sizes: list[list[list[int | None]]] = []
    for samples in (2, 3):
        found: list[list[int | None]] = []

        def note(_: nn.Module, inputs: Any, named: Any, found: list[list[int | None]] = found) -> None:
            leaves = pytree.tree_leaves((inputs, named))
            found.append([len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else None for leaf in leaves])

        hooks = [place.successor.register_forward_pre_hook(note, with_kwargs=True) for place in stack.places]
        try:
            everything = [True] * len(stack.places)
            with in_eval(stack.student), torch.no_grad(), stack.replaced(everything):
                call(stack.student, moved(_repeated(example_inputs, samples), device_of(stack.student)))
        finally:
            for hook in hooks:
                hook.remove()
        if len(found) != len(stack.places):
            raise GraphError(
                "replace: sample needs layers that run once each; some run more often; use replace: batch"
            )
        sizes.append(found)
    for place, two, three in zip(stack.places, *sizes, strict=True):
        if next(size for size in two if size is not None) != 2:
            raise GraphError("replace: sample needs layers whose first axis is the batch; use replace: batch")
        place.shared = frozenset(
            number
            for number, pair in enumerate(zip(two, three, strict=True))
            if pair != (2, 3) and pair[0] is not None
        )


def _repeated(inputs: Any, samples: int) -> Any:
    """The first sample so many times."""

    def repeat(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        return value[:1].expand(samples, *value.shape[1:]).contiguous()

    return pytree.tree_map(repeat, inputs)


def after_blocks(stack: Stack, example_inputs: Any) -> set[str]:
    """The student's parameters that are used after its last block: pooler and classifier."""
    model, names = stack.student, {}
    for name, module in stack.student.named_modules():
        names[module] = name
    found: list[str] = []
    done: list[bool] = []
    hooks = [model.get_submodule(stack.names[-1]).register_forward_hook(lambda *_: done.append(True))]

    def note(module: nn.Module, _: Any) -> None:
        if done:
            found.append(names[module])

    hooks += [module.register_forward_pre_hook(note) for module in names]
    try:
        with in_eval(model), torch.no_grad():
            call(model, moved(example_inputs, device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
    used = {
        id(parameter) for name in found for parameter in model.get_submodule(name).parameters(recurse=False)
    }
    return {name for name, parameter in stack.trainable if id(parameter) in used}
