"""Values that are cheap to code: k-means under a bound on the entropy (1612.01543), zero among the values.

k-means makes the squared error small for a number of values; a file's bytes follow the entropy of the codes. With p_j the share
of the weights that take the value c_j, each weight takes the one of least

    (w - c_j)² + price · -log2 p_j            then c_j becomes the mean of its weights, but zero stays zero

A frequent value is cheap, so it takes weights from a wider interval, and zero, the most frequent one, from the widest: small
weights are pruned where that saves more bits than it costs error. The intervals are those of the lower envelope of parabolas.
The start is an even grid of the step s with price = ln 2 / 6 · s², which is the slope of an even quantizer's error at high
rates (Gish and Pierce, 1968); s is found by bisection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lianzhi.codebook.places import place
from lianzhi.codebook.slices import Sorted
from lianzhi.errors import RecipeError

SLOPE = math.log(2) / 6
BITS = 8  # of codes that hold all values of a rate
MOST = 2**BITS - 1  # values, with zero
ITERATIONS = 12
HALVINGS = 20


@dataclass(frozen=True)
class Levels:
    """Values (float32, sorted, zero among them), the intervals that take them, and what a bit costs as a squared error.

    ``bounds`` has one number fewer than ``centroids``: a weight takes centroid i if bounds[i - 1] <= w < bounds[i].
    """

    centroids: Tensor
    bounds: Tensor
    price: float
    entropy: float

    def assign(self, values: Tensor) -> Tensor:
        """The index (int32) of each value's centroid."""
        return place(values.float(), self.bounds)

    def nearest(self, values: Tensor) -> Tensor:
        """The tensor with each weight replaced by its centroid."""
        codes = self.assign(values)
        return self.centroids.to(values.dtype).index_select(0, codes.view(-1)).view(codes.shape)


def rated(values: Tensor, rate: float, *, most: int = MOST) -> Levels:
    """At most `most` values, with zero, for one-dimensional weights, whose codes have an entropy of `rate` bits a weight.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> weights = torch.randn(1_000_000)
    >>> levels = rated(weights, 2.0)
    >>> error = (levels.centroids[levels.assign(weights)] - weights).square().mean()
    >>> round(levels.entropy, 2), round(error.item(), 3)    # k-means to four values, of 1.91 bits, leaves 0.118
    (2.0, 0.089)

    Weights that have fewer bits themselves keep their values. Raises `RecipeError` for a rate that is not above 0, and what
    `kmeans.cluster` raises for weights that are no numbers.
    """
    if not 0 < rate < math.inf:
        raise RecipeError(f"rate: {rate}; give bits a weight, above 0")
    data = Sorted(values)
    exact = data.distinct(most)
    if exact is not None:
        found = _exact(data, exact)
        if found.entropy <= rate:
            return found
    deviation = math.sqrt(float(data.values.double().square().mean()))
    low, high = (deviation * 2.0**power for power in (-rate - 6, 4))
    best = None
    for _ in range(HALVINGS):
        step = math.sqrt(low * high)
        found = _levels(data, step, most)
        low, high = (step, high) if found.entropy > rate else (low, step)
        if found.entropy <= rate:
            best = found
    return best if best is not None else found


def _levels(data: Sorted, step: float, most: int) -> Levels:
    """From the even grid of this step to where values and prices fit each other."""
    price = SLOPE * step * step
    reach = max(abs(float(data.values[0])), abs(float(data.values[-1])))
    side = max(1, min(math.ceil(reach / step), most // 2))
    centroids = step * torch.arange(-side, side + 1, dtype=torch.float64)
    costs = torch.zeros_like(centroids)
    for _ in range(ITERATIONS):
        slices = data.between(_ends(data, intervals(centroids, costs)))
        centroids, costs = followed(centroids, slices.counts, slices.sums, price)
        stays = (slices.counts > 0) | (centroids == 0)
        centroids, costs = centroids[stays], costs[stays]
    bounds = intervals(centroids, costs)
    shares = data.between(_ends(data, bounds)).counts.double() / len(data)
    return Levels(centroids.float(), bounds.float(), price, entropy_of(shares))


def followed(centroids: Tensor, counts: Tensor, sums: Tensor, price: float) -> tuple[Tensor, Tensor]:
    """Each centroid at the mean of its weights, but zero at zero, and what its code costs: sorted, in float64."""
    before = centroids.double()
    moved = torch.where((counts > 0) & (before != 0), sums / counts.clamp(min=1), before)
    costs = -price * (counts.double().clamp(min=0.5) / counts.sum()).log2()
    order = moved.argsort()  # one without weights stays where it is, and others may pass it
    return moved[order], costs[order]


def _ends(data: Sorted, bounds: Tensor) -> Tensor:
    return torch.cat(
        [data.index.new_zeros(1), data.below(bounds.float()), data.index.new_tensor([len(data)])]
    )


def intervals(centroids: Tensor, costs: Tensor) -> Tensor:
    """The bounds between the intervals in which each centroid (sorted) is the cheapest: (x - c)² + cost.

    One that is nowhere the cheapest has no numbers between its bounds.

    >>> intervals(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 9.0, 1.0]))
    tensor([1.2500, 1.2500])
    """
    heights = centroids.square() + costs
    bounds = heights.diff() / (2 * centroids.diff())
    if bool((bounds.diff() >= 0).all()):
        return bounds
    c, h = centroids.tolist(), heights.tolist()
    kept, lower = [0], [-math.inf]
    for index in range(1, len(c)):
        bound = -math.inf
        while kept:
            bound = _meet(c[kept[-1]], h[kept[-1]], c[index], h[index])
            if bound > lower[-1]:
                break
            kept.pop()
            lower.pop()
            bound = -math.inf
        if bound < math.inf:
            kept.append(index)
            lower.append(bound)
    places = torch.searchsorted(torch.tensor(kept), torch.arange(1, len(c)))
    return centroids.new_tensor([*lower, math.inf])[places]


def _meet(left: float, height: float, right: float, other: float) -> float:
    """Where the right parabola becomes the lower one."""
    if right == left:
        return -math.inf if other < height else math.inf
    return (other - height) / (2 * (right - left))


def _exact(data: Sorted, values: Tensor) -> Levels:
    bounds = values[1:]
    counts = _ends(data, bounds).diff().double()
    return Levels(values, bounds, 0.0, entropy_of(counts / len(data)))


def entropy_of(shares: Tensor) -> float:
    """Bits: sum of -p log2 p.

    >>> entropy_of(torch.tensor([0.5, 0.25, 0.25]))
    1.5
    """
    some = shares[shares > 0]
    return float(-(some * some.log2()).sum())
