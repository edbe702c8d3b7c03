"""FitNets: hints from a middle layer. Romero et al. 2014 (1412.6550), equation 3.

    loss = mean of (r(student) - teacher)²

The paper sums half of the squares; the mean over all elements, which published code uses, does not depend on
the size of the maps. The regressor r that brings the student to the teacher's shape is no part of the loss.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import same
from lianzhi.distill.losses.parts import mean_or_zero


@registry.register(
    "fitnet",
    "mean squared error between feature maps of one shape",
    paper="https://arxiv.org/abs/1412.6550",
)
def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Make the student's features those of the teacher.

    >>> import torch
    >>> fitnet(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)).item()
    4.0

    Features are (batch, …) of the same shape. No gradient goes to the teacher.

    Raises:
        DataError: the shapes differ.
    """
    student, teacher = same(student, teacher)
    return mean_or_zero((student - teacher).square())
