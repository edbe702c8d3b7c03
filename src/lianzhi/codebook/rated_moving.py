"""Weights that move among values of a rate: those of `moving`, with the intervals and the prices of `rated`.

While weights move, their codes' entropy does, too: training pushes small ones out of zero, whose bits the file would then
have. So the price follows the entropy: too many bits make each dearer, until the rate holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.codebook.moving import Moving
from lianzhi.codebook.places import place
from lianzhi.codebook.rated import Levels, entropy_of, followed, intervals

GAIN = 0.05  # of the price, for each bit too many: some hundred updates until a difference is gone


class RatedMoving(Moving):
    """The parametrization of such a weight. What was zero before stays zero, and gets no gradient.

    >>> weight = torch.tensor([[0.0, 0.1, 1.2, 1.9]])
    >>> RatedMoving(weight, Levels(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 1.5]), 0.1, 1.5))(weight)
    tensor([[0., 0., 1., 2.]])
    """

    centroids_0: Tensor
    bounds: Tensor
    price: Tensor
    rate: Tensor

    def __init__(self, weight: Tensor, levels: Levels) -> None:
        super().__init__(weight, [levels.centroids])
        self.register_buffer("bounds", levels.bounds.clone())
        for name, number in (("price", levels.price), ("rate", levels.entropy)):
            self.register_buffer(name, torch.tensor(number, dtype=torch.float64))

    def _shared(self, weight: Tensor) -> Tensor:
        codes = place(weight.float(), self.bounds)
        return self.centroids_0.to(weight.dtype).index_select(0, codes.view(-1)).view(codes.shape)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """One iteration: each centroid, what it costs and its interval, from the weights that it has."""
        flat = weight.reshape(-1)
        codes = place(flat.float(), self.bounds)
        counts = torch.bincount(codes, minlength=len(self.centroids_0))
        sums = torch.bincount(codes, flat.double(), len(self.centroids_0))
        self.price.mul_(2 ** (GAIN * (entropy_of(counts.double() / len(flat)) - self.rate)))
        centroids, costs = followed(self.centroids_0, counts, sums, float(self.price))
        self.centroids_0.copy_(centroids)
        self.bounds.copy_(intervals(centroids, costs))
