"""Similarity-preserving distillation: Tung and Mori 2019 (1907.09682), section 3.1.

    G = F Fᵀ, each row scaled to length 1        loss = mean over b² of (G_s - G_t)²

F has one row a sample: inputs that are alike to the teacher shall be alike to the student. The sum over layers
is the method's.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import products, unit, vectors
from lianzhi.distill.losses.parts import mean_or_zero


@registry.register(
    "similarity_preserving",
    "which samples of a batch are alike",
    paper="https://arxiv.org/abs/1907.09682",
)
def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Make the samples alike that are alike to the teacher.

    >>> import torch
    >>> teacher = torch.eye(2)
    >>> similarity_preserving(3 * teacher, teacher).item()
    0.0
    >>> round(similarity_preserving(torch.ones(2, 5), teacher).item(), 4)    # all alike: rows (0.71, 0.71)
    0.2929

    Features are (batch, …), taken as one vector a sample; how long it is may differ. No gradient goes to the
    teacher.

    Raises:
        DataError: the features are not of the same samples.
    """
    student, teacher = vectors(student, teacher)
    difference = unit(products(student, student)) - unit(products(teacher, teacher))
    return mean_or_zero(difference.square())
