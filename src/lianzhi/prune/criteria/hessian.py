"""Second-order damage, with the Fisher diagonal for the Hessian: Optimal Brain Damage (LeCun, Denker, Solla 1990).

score(i) = ½ Σ h·w² over the unit's slices, h = mean over samples of (∂L/∂w)², the diagonal of the empirical
Fisher matrix, which stands in for the Hessian near a minimum. Squares are taken sample by sample: one backward
pass each, so that some hundred samples are a sensible calibration. `over` as in `taylor`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lianzhi.config import Config
from lianzhi.prune.criteria.registry import needs, registry
from lianzhi.prune.importance import GroupView


class HessianOptions(Config):
    """Options of `hessian`."""

    over: Literal["group", "producers", "consumers"] = "group"


@registry.register(
    "hessian",
    "½ Σ h·w² with the empirical Fisher diagonal",
    paper="Optimal Brain Damage",
    config=HessianOptions,
)
@needs("fisher")
def hessian(view: GroupView, *, over: str = "group") -> list[Tensor]:
    """One score a unit.

    >>> from lianzhi.prune import plan
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[1].weight.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 1.0]])
    >>> batches = [(torch.ones(4, 1), torch.zeros(4, 1))]
    >>> loss = lambda outputs, labels: (outputs - labels).square().mean()
    >>> plan(net, torch.zeros(1, 1), ratio=0.5, criterion="hessian", calibration=batches, loss=loss).keeps["0"]
    tensor([False,  True])
    """
    found = view.fisher(over)
    return [0.5 * torch.stack(found).sum(0)] if found else []
