"""Probabilistic knowledge transfer: Passalis and Tefas 2018 (1803.10837), section 3.

    K(i, j) = (cosine of f_i and f_j + 1) / 2        p(j | i) = K(i, j) / sum over k of K(i, k)
    loss = mean over all pairs of p_t · log(p_t / p_s)

The paper leaves a sample out of its own neighbours and sums over pairs. The authors' code counts it and takes the
mean over pairs, and so does this: the weight of 30000 belongs to it. 1e-7 under the logarithm is theirs too.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import products, unit, vectors
from lianzhi.distill.losses.parts import mean_or_zero

EPSILON = 1e-7


@registry.register(
    "pkt",
    "KL divergence between how likely samples are to be neighbours",
    paper="https://arxiv.org/abs/1803.10837",
)
def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Make the samples neighbours that are neighbours in the teacher.

    >>> import torch
    >>> teacher = torch.eye(2)                                   # p = (2/3, 1/3) and (1/3, 2/3)
    >>> pkt(4 * teacher, teacher).item()
    0.0
    >>> round(pkt(torch.ones(2, 5), teacher).item(), 4)          # p = (1/2, 1/2): ln 2 + the mean of p · ln p, halved
    0.0283

    Features are (batch, …), taken as one vector a sample; how long it is may differ. No gradient goes to the
    teacher.

    Raises:
        DataError: the features are not of the same samples.
    """
    student, teacher = vectors(student, teacher)
    own, wanted = _neighbours(student), _neighbours(teacher)
    return mean_or_zero(wanted * ((wanted + EPSILON).log() - (own + EPSILON).log()))


def _neighbours(features: Tensor) -> Tensor:
    """How likely each sample is a neighbour of each: rows that sum to 1."""
    directions = unit(features)
    kernel = (products(directions, directions) + 1) / 2
    return kernel / kernel.sum(1, keepdim=True)
