"""Like blocks in a model: the modules of one class that stand side by side in a list."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


def like_blocks(model: nn.Module, *, least: int = 2) -> dict[str, list[str]]:
    """Names of the modules of each list that have parameters, and in it at least `least` of their class.

    A list is a `ModuleList` or a `Sequential`; the key is its name, and lists may lie in one another.

    >>> like_blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.LayerNorm(2)))
    {'': ['0', '2']}
    """
    found: dict[str, list[str]] = {}
    for path, parent in model.named_modules():
        if not isinstance(parent, (nn.ModuleList, nn.Sequential)):
            continue
        names = [
            f"{path}.{index}" if path else index
            for index, child in parent.named_children()
            if sum(type(other) is type(child) for other in parent.children()) >= least
            and next(child.parameters(), None) is not None
        ]
        if names:
            found[path] = names
    return found


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in what a module takes or gives: itself, or the first in a tuple, a dict, an output object.

    >>> import torch
    >>> first_tensor((None, torch.ones(1), torch.zeros(1)))
    tensor([1.])
    """
    return next((leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), None)
