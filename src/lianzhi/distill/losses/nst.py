"""Neuron selectivity transfer: Huang and Wang 2017 (1707.01219), section 4, with the kernel (xᵀy)².

    loss = mean k(t, t') + mean k(s, s') - 2 · mean k(s, t)

x and y are the activity of one channel over the positions of a map, scaled to length 1: the distributions of the
two sets of channels are compared by their maximum mean discrepancy, so that the numbers of channels may differ.
The paper's factor 1/2 is left to the weight.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import maps, products, unit
from lianzhi.distill.losses.parts import mean_or_zero


@registry.register(
    "nst",
    "maximum mean discrepancy between the activity of channels",
    paper="https://arxiv.org/abs/1707.01219",
)
def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Make the student's channels, as a set, select the positions that the teacher's select.

    >>> import torch
    >>> teacher = torch.rand(2, 6, 4, 4)
    >>> abs(nst(5 * teacher.flip(1), teacher).item()) < 1e-6         # channels in another order
    True
    >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    >>> nst(left, right).item()
    2.0

    Features are (batch, channels, height, width); channels may differ, and of sizes the larger is averaged down.
    No gradient goes to the teacher.

    Raises:
        DataError: the features are no maps, or not of the same samples.
    """
    student, teacher = (unit(side.flatten(2)) for side in maps(student, teacher))
    return _kernel(teacher, teacher) + _kernel(student, student) - 2 * _kernel(student, teacher)


def _kernel(left: Tensor, right: Tensor) -> Tensor:
    """The mean of (xᵀy)² over samples and pairs of channels (batch, channels, positions).

    The sum over channels is |L Rᵀ|² = trace of (Lᵀ L)(Rᵀ R): the smaller of the two matrices is made.
    """
    channels = left.shape[1] * right.shape[1]
    if channels <= left.shape[2] ** 2:
        return mean_or_zero(products(left, right).square())
    left, right = left.transpose(1, 2), right.transpose(1, 2)
    sums = (products(left, left) * products(right, right)).sum((1, 2))
    return mean_or_zero(sums) / channels
