"""Bring a module's own attributes in step with its sliced tensors: `out_channels`, `num_features`, pads.

Leaf layers are known by a table. For the rest, an integer attribute of the module in whose `forward` an op
was called is changed if it equals the op's old value. The caller checks the result by running it.
"""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from lianzhi.graph.groups import Groups
from lianzhi.prune.rewrite import Change


def sync_leaf(module: nn.Module) -> None:
    """Set a leaf layer's attributes from the shape of its tensors."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        module.num_features = weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def owner_of(node: fx.Node) -> str:
    """The path of the innermost module in whose forward the op was called."""
    stack = node.meta.get("nn_module_stack") or {}
    path = ""
    for value in stack.values():
        path = value[0] if isinstance(value, tuple) else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")


def sync_attributes(model: nn.Module, changes: list[Change], groups: Groups) -> None:
    """Change attributes so that the module computes with its sliced tensors."""
    modules = dict(model.named_modules())
    pending: dict[str, list[tuple[Any, Any]]] = {}
    for node, position, old, new in changes:
        owner = owner_of(node)
        if position == 6 and isinstance(modules.get(owner), (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            modules[owner].groups = new  # type: ignore[assignment]
            continue
        pairs = zip(old, new, strict=True) if isinstance(old, (list, tuple)) and isinstance(new, list) and len(old) == len(new) else [(old, new)]
        pending.setdefault(owner, []).extend((a, b) for a, b in pairs if isinstance(a, int) and a != b)
    for owner, pairs in pending.items():
        if owner in modules:
            _assign(modules[owner], list(pairs))
    for module in modules.values():
        sync_leaf(module)


def _assign(module: nn.Module, pairs: list[tuple[int, int]]) -> None:
    """Give the module's integers, in the order in which they were defined, their new values."""
    names = [
        name
        for name, value in vars(module).items()
        if type(value) is int and not name.startswith("_")
    ]
    for old, new in pairs:
        for name in names:
            if getattr(module, name) == old:
                setattr(module, name, new)
                names.remove(name)
                break
