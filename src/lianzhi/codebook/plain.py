"""Weights that are parameters themselves, and not computed of others by weight_norm, spectral_norm or a parametrization.

A step that changes values one by one must not change those: a removed scale of weight_norm takes a whole neuron with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lianzhi.errors import GraphError

# what a weight is computed of: the ending of its name, and the one of the numbers, one a channel, that belong to it
_COMPUTED = {"_g": ("_g", "weight_norm"), "_v": ("_g", "weight_norm"), "_orig": ("_u", "spectral_norm")}


def require_plain(name: str, module: nn.Module, *, step: str, leave: str) -> None:
    """Refuse a module that computes its weights, or holds what they are computed of; `leave` says how to leave it out.

    >>> require_plain("fc", nn.Linear(2, 2), step="prune", leave="leave it out")
    >>> require_plain(
    ...     "fc",
    ...     nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    ...     step="prune",
    ...     leave="leave it out",
    ... )
    Traceback (most recent call last):
        ...
    lianzhi.errors.GraphError: prune: 'fc' has parametrizations; remove them first, or leave it out
    """
    where = f"'{name}'" if name else "the model"
    if isinstance(module, parametrize.ParametrizationList) or parametrize.is_parametrized(module):
        raise GraphError(f"{step}: {where} has parametrizations; remove them first, or {leave}")
    computed = [
        hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))
    ]
    if computed:
        raise GraphError(
            f"{step}: the weight of {where} is computed by {type(computed[0]).__name__}; remove it first, or {leave}"
        )


def require_plain_names(
    names: Iterable[str], tensors: Mapping[str, Tensor], *, step: str, leave: str
) -> None:
    """The same by names and shapes, where there are `tensors` alone.

    >>> state = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)).state_dict()
    >>> require_plain_names(["bias"], state, step="pack", leave="leave it out")
    >>> require_plain_names(list(state)[1:], state, step="pack", leave="leave it out")
    Traceback (most recent call last):
        ...
    lianzhi.errors.GraphError: pack: 'parametrizations.weight.original0' is what a parametrization computes a weight of; remove it first, or leave it out
    """
    for name in names:
        by = "a parametrization" if ".parametrizations." in f".{name}" else ""
        for ending, (scale, kind) in _COMPUTED.items():
            beside = tensors.get(name.removesuffix(ending) + scale) if name.endswith(ending) else None
            if beside is not None and beside.numel() == max(beside.shape, default=1):
                by = kind
        if by:
            raise GraphError(
                f"{step}: '{name}' is what {by} computes a weight of; remove it first, or {leave}"
            )
