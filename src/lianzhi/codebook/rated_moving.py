"""Weights that move among values of a rate: those of `moving`, with the intervals and the prices of `rated`.

While weights move, their codes' entropy does, too: training pushes small ones out of zero, whose bits the file would then
have. So the price follows the entropy: too many bits make each dearer, until the rate holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.codebook.merging import entropy_of
from lianzhi.codebook.moving import Moving
from lianzhi.codebook.places import place
from lianzhi.codebook.rated import Levels, followed, intervals
from lianzhi.codebook.slices import Sorted, not_numbers

GAIN = 0.25  # of the price, as a power of two, for each bit too many: some tens of updates until a difference is gone
REACH = 64.0  # times its first value, up or down, the price goes at most


class RatedMoving(Moving):
    """The parametrization of such a weight. What was zero before stays zero, and gets no gradient.

    >>> weight = torch.tensor([[0.0, 0.1, 1.2, 1.9]])
    >>> RatedMoving(weight, Levels(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 1.5]), 0.1, 1.5), 1.5)(weight)
    tensor([[0., 0., 1., 2.]])
    """

    centroids_0: Tensor
    bounds: Tensor

    def __init__(self, weight: Tensor, levels: Levels, rate: float) -> None:
        super().__init__(weight, [levels.centroids])
        self.register_buffer("bounds", levels.bounds.clone())
        self.rate, self.first, self.price = rate, levels.price, levels.price

    def _shared(self, weight: Tensor) -> Tensor:
        codes = place(weight.float(), self.bounds.float())
        return self.centroids_0.to(weight.dtype).index_select(0, codes.view(-1)).view(codes.shape)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """One iteration: each centroid, what it costs and its interval, from the weights that it has."""
        (flat,) = self._filled(weight)
        counts, sums = _by_value(flat, self.bounds.float(), len(self.centroids_0))
        if not bool(sums.isfinite().all()):
            raise not_numbers(flat)
        zeros = weight.numel() - len(flat)
        zero = self.centroids_0 == 0
        every = counts.double() + zeros * zero
        beside = every.new_tensor([0.0 if bool(zero.any()) else float(zeros)])
        entropy = entropy_of(torch.cat([every, beside]) / max(1, weight.numel()))
        price = self.price * 2 ** (GAIN * (entropy - self.rate))
        self.price = min(max(price, self.first / REACH), self.first * REACH)
        centroids, costs = followed(self.centroids_0, counts, sums, self.price, zeros=zeros)
        self.centroids_0.copy_(centroids)
        self.bounds.copy_(intervals(centroids, costs))

    def get_extra_state(self) -> Tensor:
        """The price and its first value, for a checkpoint; no buffer, for in half precision they would stand still."""
        return torch.tensor([self.price, self.first], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take them from a checkpoint."""
        self.price, self.first = state.tolist()


def _by_value(flat: Tensor, bounds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How many weights each value has, and their sum."""
    if flat.device.type != "cpu":  # elsewhere sums by code are taken in any order
        data = Sorted(flat)
        if not len(data):
            return bounds.new_zeros(count), bounds.new_zeros(count).double()
        slices = data.slices_of(bounds)
        return slices.counts, slices.sums
    codes = place(flat.float(), bounds)
    return torch.bincount(codes, minlength=count), torch.bincount(codes, flat.double(), count)
