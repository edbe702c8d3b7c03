"""Contrastive representation distillation: Tian, Krishnan and Isola 2019 (1910.10699), section 3.

    h(a, b) = e / (e + Z · K / M),  e = exp(aᵀb / tau)
    loss = mean over anchors of  - log h(anchor, positive) - sum over K negatives of log(1 - h(anchor, negative))

Of K + 1 candidates, one comes from the same sample as the anchor: h is the probability that it is this one. M is
the number of samples in the data. Z is 1 in the paper; the authors' code estimates it in the first step, as M times
the mean of e, so that h is of a sensible size from the beginning: `normalizer`. Here everything is computed from
log e, and cannot overflow.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import products
from lianzhi.distill.losses.parts import mean_or_zero, wide
from lianzhi.errors import DataError


class CRDOptions(Config):
    """Options of `crd`."""

    temperature: float = Field(default=0.07, gt=0)


@registry.register(
    "crd",
    "tell the pair of one sample from pairs of two samples",
    paper="https://arxiv.org/abs/1910.10699",
    config=CRDOptions,
)
def crd(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 0.07,
    samples: int | None = None,
    normalizer: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Bring each anchor to its positive and away from the negatives.

    >>> import torch
    >>> anchors = torch.tensor([[1.0, 0.0]])
    >>> loss = crd(anchors, anchors, torch.tensor([[0.0, 1.0]]), temperature=1.0)
    >>> round(loss.item(), 4)                    # ln(1 + 1/e) + ln(1 + 1)
    1.0064

    `anchors` and `positives` are (batch, size) from the two networks, made comparable by projections and scaled to
    length 1; `negatives` are (K, size), the same for all anchors, or (batch, K, size). `samples` is M (default: K).
    Where `mask`, (batch, K), is false a negative is none (it may be of the anchor's own class); the others stand
    for K. Gradients go to the anchors only: the method takes each network as the anchor once.

    Raises:
        RecipeError: the temperature is not above 0.
        DataError: the shapes do not go together, or `samples` is below 1.
    """
    temperature = CRDOptions(temperature=temperature).temperature
    _require_shapes(anchors, positives, negatives, mask)
    anchors, positives, negatives = wide(anchors), wide(positives.detach()), wide(negatives.detach())
    count = negatives.shape[-2]
    if samples is not None and samples < 1:
        raise DataError(f"samples is {samples}; it is the number of samples in the data, 1 at least")
    shift = math.log(count / (samples or count)) + torch.as_tensor(normalizer).log().to(anchors)
    near = (anchors * positives).sum(-1) / temperature
    keep = None if mask is None else mask.to(torch.bool)
    if keep is not None:  # what is masked for all may be anything, NaN too
        unused = ~keep.any(0) if negatives.ndim == 2 else ~keep
        negatives = negatives.masked_fill(unused.unsqueeze(-1), 0.0)
    far = similarities(anchors, negatives) / temperature
    losses = functional.softplus(far - shift)
    if keep is None:
        sums = losses.sum(-1)
    else:
        sums = count * losses.masked_fill(~keep, 0.0).sum(-1) / keep.sum(-1).clamp(min=1)
    return mean_or_zero(functional.softplus(shift - near) + sums)


def similarities(anchors: Tensor, others: Tensor) -> Tensor:
    """Inner products (batch, K) of anchors (batch, size) with others (K, size) or (batch, K, size).

    >>> similarities(torch.eye(2), torch.ones(3, 2)).shape
    torch.Size([2, 3])
    """
    if others.ndim == 2:
        return products(anchors, others)
    return products(anchors.unsqueeze(1), others).squeeze(1)


def _require_shapes(anchors: Tensor, positives: Tensor, negatives: Tensor, mask: Tensor | None) -> None:
    if anchors.ndim != 2 or anchors.shape != positives.shape:
        raise DataError(
            f"anchors have shape {list(anchors.shape)} and positives {list(positives.shape)}; "
            f"both must be (batch, size)"
        )
    batch, size = anchors.shape
    wanted = (size,) if negatives.ndim == 2 else (batch, size)
    if negatives.ndim not in (2, 3) or (*negatives.shape[:-2], negatives.shape[-1]) != wanted:
        raise DataError(
            f"negatives have shape {list(negatives.shape)}; anchors {[batch, size]} need (K, {size}) "
            f"or ({batch}, K, {size})"
        )
    if not negatives.shape[-2]:
        raise DataError(f"negatives have shape {list(negatives.shape)}; there must be at least one")
    if mask is not None and list(mask.shape) != [batch, negatives.shape[-2]]:
        raise DataError(f"the mask has shape {list(mask.shape)}; it must be {[batch, negatives.shape[-2]]}")
