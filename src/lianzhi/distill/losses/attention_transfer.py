"""Attention transfer: Zagoruyko and Komodakis 2016 (1612.03928), section 3.1.

    Q = mean over channels of |A|^p, as a vector of length 1        loss = mean of (Q_s - Q_t)²

A map of attention says where a layer is active; its number of channels does not matter. The paper writes the
length of Q_s - Q_t; the authors' code takes the mean of squares over samples and positions, and so does this,
because their weight of 1000 belongs to it. The larger map is averaged down to the size of the smaller.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import maps, unit
from lianzhi.distill.losses.parts import mean_or_zero


class AttentionTransferOptions(Config):
    """Options of `attention_transfer`."""

    p: float = Field(default=2.0, gt=0)


@registry.register(
    "attention_transfer",
    "mean squared error between normalised maps of where a layer is active",
    paper="https://arxiv.org/abs/1612.03928",
    config=AttentionTransferOptions,
)
def attention_transfer(student: Tensor, teacher: Tensor, *, p: float = 2.0) -> Tensor:
    """Make the student look where the teacher looks.

    >>> import torch
    >>> teacher = torch.rand(2, 16, 4, 4)
    >>> attention_transfer(3 * teacher, teacher).item() < 1e-12          # only where, not how strongly
    True
    >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    >>> attention_transfer(left, right).item()
    1.0

    Features are (batch, channels, height, width); channels may differ, and sizes too. A sample whose features
    are all zero has a map of zeros. No gradient goes to the teacher.

    Raises:
        RecipeError: p is not above 0.
        DataError: the features are no maps, or not of the same samples.
    """
    p = AttentionTransferOptions(p=p).p
    student, teacher = maps(student, teacher)
    return mean_or_zero((_attention(student, p) - _attention(teacher, p)).square())


def _attention(features: Tensor, p: float) -> Tensor:
    return unit(_powers(features, p).mean(1).flatten(1))


def _powers(features: Tensor, p: float) -> Tensor:
    """|features|^p; where p is below 1 the slope at 0 has no end, and a feature of 0 gets no gradient."""
    if p == 2:
        return features.square()
    sizes = features.abs()
    if p >= 1:
        return sizes.pow(p)
    some = sizes > 0
    return torch.where(some, torch.where(some, sizes, 1.0).pow(p), 0.0)
