"""Settings and looks that the tests of module replacement share."""

from __future__ import annotations

import copy

import torch
from lessons import STILL, setting
from small_transformers import bert
from torch import nn
from torch.nn import functional

from lianzhi.distill.methods import Setting
from lianzhi.tasks import Batch


def alike(depth: int = 4, *, kind: str = "bert", data=None, **changes) -> Setting:
    """Teacher and student are the same model, in two objects."""
    model = bert(depth, seed=1, kind=kind, **(STILL if kind == "bert" else {}), **changes)
    return setting(model, copy.deepcopy(model), data)


def entropy(model: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return functional.cross_entropy(model(**batch.inputs).logits, batch.labels).item()


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def of_blocks(name: str) -> bool:
    return ".layer." in name or ".layers." in name
