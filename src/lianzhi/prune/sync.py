"""Bring a module's own attributes in step with its sliced tensors: `out_channels`, `num_features`, pads.

Leaf layers are known by a table. For the rest, an integer (or a tuple of integers) of the module in whose
`forward` an op was called is changed if it equals the op's old value. The caller checks the result by running it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from lianzhi.graph.trace import owner_of
from lianzhi.prune.plain import refresh_recurrent
from lianzhi.prune.rewrite import Change

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_GATES = {"LSTM": 4, "GRU": 3}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def sync_leaf(module: nn.Module) -> None:
    """Set a leaf layer's attributes from the shape of its tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, _NORMS):
        tensor = weight if weight is not None else module.running_mean
        module.num_features = module.num_features if tensor is None else len(tensor)
    elif isinstance(module, nn.RNNBase):
        gates = _GATES.get(module.mode, 1)  # with a projection the columns of weight_hh are its size
        module.hidden_size, module.input_size = (
            len(module.weight_hh_l0) // gates,
            module.weight_ih_l0.shape[1],
        )
        refresh_recurrent(module)
    elif weight is None:
        return
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(weight)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, _CONVOLUTIONS):
        first, second = weight.shape[0], weight.shape[1] * module.groups
        module.in_channels, module.out_channels = (first, second) if module.transposed else (second, first)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def sync_attributes(model: nn.Module, changes: list[Change], *, every: bool = False) -> None:
    """Change attributes so that the module computes with its sliced tensors.

    A change is given to the first attribute that has the old value and no new one yet; with `every`, to all.
    """
    modules = dict(model.named_modules())
    pending: dict[str, list[Change]] = {}
    for change in changes:
        module = modules.get(owner_of(change.node))
        if module is not None and change.name == "groups" and isinstance(module, _CONVOLUTIONS):
            module.groups = change.new
        else:
            pending.setdefault(owner_of(change.node), []).append(change)
    for owner, found in pending.items():
        if owner in modules:
            _assign(modules[owner], found, every)
    for module in modules.values():
        sync_leaf(module)


def _assign(module: nn.Module, changes: list[Change], every: bool) -> None:
    """Give the module's attributes, in the order in which they were defined, their new values."""
    free = [name for name in vars(module) if not name.startswith("_")]
    for change in changes:
        if isinstance(change.old, (list, tuple)) and isinstance(change.new, list):
            kind = next(
                (type(getattr(module, name)) for name in free if _is(getattr(module, name), change.old)), None
            )
            if kind is not None:
                _replace(module, free, every, change.old, kind(change.new))
            elif len(change.old) == len(change.new):
                for old, new in zip(change.old, change.new, strict=True):
                    if isinstance(old, int) and old != new:
                        _replace(module, free, every, old, new)
        elif isinstance(change.new, int):
            _replace(module, free, every, change.old, change.new)
        elif change.name == "split_size" and len(set(change.new)) == 1:
            _replace(module, free, every, change.old, change.new[0])


def _is(value: Any, old: Any) -> bool:
    """Whether an attribute is this integer, or this list of integers."""
    if isinstance(old, (list, tuple)):
        return type(value) in (list, tuple) and len(value) > 0 and list(value) == list(old)
    return type(value) is int and value == old


def _replace(module: nn.Module, free: list[str], every: bool, old: Any, new: Any) -> None:
    """Set the first attribute, or all, that have the old value and are not set yet."""
    names = [name for name in free if _is(getattr(module, name), old)]
    for name in names if every else names[:1]:
        setattr(module, name, new)
        free.remove(name)
