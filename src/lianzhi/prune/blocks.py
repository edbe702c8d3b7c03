"""Residual blocks in a model: which modules of a list could be the identity, and what the model is without them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi.graph import first_tensor, in_eval, like_blocks, split_inputs


class Skip(nn.Module):
    """Gives back its first input, in a tuple where the block that it stands for gave one."""

    def __init__(self, as_tuple: bool = False) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (value,) if self.as_tuple else value


def find_blocks(model: nn.Module, example_inputs: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Blocks that could be the identity, with what went in and came out; the outermost where they are nested."""
    candidates = [name for names in like_blocks(model).values() for name in names]
    seen = _watch(model, example_inputs, candidates)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name in candidates:
        runs = seen.get(name, [])
        if len(runs) != 1 or runs[0][0].shape != runs[0][1].shape or runs[0][0].dtype != runs[0][1].dtype:
            continue
        first, last, args, kwargs = runs[0]
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if not inner and _is_residual(model.get_submodule(name), first, args, kwargs):
            found[name] = (first, last)
    return found


def ends_of(model: nn.Module, inputs: Any, names: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into these blocks, and what comes out."""
    return {name: runs[0][:2] for name, runs in _watch(model, inputs, names).items()}


def _watch(
    model: nn.Module, inputs: Any, names: Iterable[str]
) -> dict[str, list[tuple[Tensor, Tensor, Any, Any]]]:
    """Of each run of each of these modules: the first tensor in and out, and all arguments."""
    seen: dict[str, list[tuple[Tensor, Tensor, Any, Any]]] = {}
    hooks = []
    for name in names:

        def record(_: nn.Module, args: Any, kwargs: Any, out: Any, name: str = name) -> None:
            first, last = first_tensor((args, kwargs)), first_tensor(out)
            if first is not None and last is not None:
                seen.setdefault(name, []).append((first, last, args, kwargs))

        hooks.append(model.get_submodule(name).register_forward_hook(record, with_kwargs=True))
    try:
        outputs(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _is_residual(block: nn.Module, first: Tensor, args: Any, kwargs: Any) -> bool:
    """Whether the input reaches the output by itself: it does so still when all matrices are zero."""
    silent = copy.deepcopy(block).eval()
    with torch.no_grad():
        for parameter in silent.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        other = first + torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        swapped = pytree.tree_map(lambda leaf: other if leaf is first else leaf, (args, kwargs))
        one, two = (first_tensor(silent(*a, **k)) for a, k in ((args, kwargs), swapped))
    return one is not None and two is not None and not torch.allclose(one, two)


def outputs(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """Every tensor that the model gives, in eval mode."""
    args, kwargs = split_inputs(example_inputs)
    with in_eval(model), torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor)]


def output_kind(model: nn.Module, name: str, example_inputs: Any) -> Any:
    """What a block gives: a tensor, or a tuple that begins with it."""
    kinds: list[Any] = []
    hook = model.get_submodule(name).register_forward_hook(lambda module, args, out: kinds.append(out))
    try:
        outputs(model, example_inputs)
    finally:
        hook.remove()
    return kinds[0]


def bypassed_output(model: nn.Module, removed: Sequence[str], example_inputs: Any) -> list[Tensor]:
    """What the model computes when these blocks hand on what they are given."""

    def bypass(_: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        value = first_tensor((args, kwargs))
        return (value, *out[1:]) if isinstance(out, tuple) else value

    hooks = [model.get_submodule(name).register_forward_hook(bypass, with_kwargs=True) for name in removed]
    try:
        return outputs(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
