"""Weights that are parameters themselves, and not computed of others by weight_norm, spectral_norm or a parametrization.

A step that changes values one by one must not change those: a removed scale of weight_norm takes a whole neuron with it.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lianzhi.errors import GraphError


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
