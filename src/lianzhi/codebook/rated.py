"""Values that are cheap to code: k-means under a bound on the entropy (1612.01543), zero among the values.

k-means makes the squared error small for a number of values; a file's bytes follow the entropy of the codes. With p_j the share
of the weights that take the value c_j, each weight takes the one of least

    (w - c_j)² + price · -log2 p_j            then c_j becomes the mean of its weights, but zero stays zero

A frequent value is cheap, so it takes weights from a wider interval, and zero, the most frequent one, from the widest: small
weights are pruned where that saves more bits than it costs error. The intervals are those of the lower envelope of parabolas.
What is zero already stays zero.

The start is an even grid of the step s with price = ln 2 / 6 · s², which is the slope of an even quantizer's error at high
rates (Gish and Pierce, 1968), and wider steps in the tails; s is found by bisection. Where weights have few values, neighbours
are merged, first those that cost the least error a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lianzhi.codebook.kmeans import cluster
from lianzhi.codebook.merging import Cells, merged
from lianzhi.codebook.places import place
from lianzhi.codebook.slices import Sorted, boundaries, filled
from lianzhi.errors import RecipeError

SLOPE = math.log(2) / 6
BITS = 8  # of codes that hold all values of a rate
MOST = 2**BITS - 1  # values, with zero
ITERATIONS = 12
HALVINGS = 20
TAIL = 0.001  # of the weights at either end have a grid of wider steps
TAIL_VALUES = 24
LEAST = 64  # values
HIGH = 6.0  # bits, from which on k-means to all values may be better than any grid of them


@dataclass(frozen=True)
class Levels:
    """Values (float32, sorted), the intervals that take them, what a bit costs as a squared error, and what codes take.

    ``bounds`` has one number fewer than ``centroids``: a weight takes centroid i if bounds[i - 1] <= w < bounds[i]; only what is
    zero stays zero in any case. `entropy` is in bits a weight.
    """

    centroids: Tensor
    bounds: Tensor
    price: float
    entropy: float

    def assign(self, values: Tensor) -> Tensor:
        """The index (int32) of each value's centroid; of zeros it says nothing."""
        return place(values.float(), self.bounds)

    def nearest(self, values: Tensor) -> Tensor:
        """The tensor with each weight replaced by its centroid."""
        codes = self.assign(values)
        found = self.centroids.to(values.dtype).index_select(0, codes.view(-1)).view(codes.shape)
        return torch.where(values == 0, 0, found)


def rated(values: Tensor, rate: float, *, most: int = MOST) -> Levels:
    """At most `most` values, with zero, for one-dimensional weights, whose codes take `rate` bits a weight at most, as entropy.

    >>> weights = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    >>> levels = rated(weights, 2.0)
    >>> error = (levels.nearest(weights) - weights).square().mean()
    >>> round(levels.entropy, 2), round(error.item(), 3)    # k-means to four values, of 1.91 bits, leaves 0.118
    (2.0, 0.089)

    Weights that have so few bits themselves keep their values (as float32). Raises `RecipeError` for a rate that is not above
    0 and at most 8 or fewer than 64 values, and what `kmeans.cluster` raises for weights that are no numbers.
    """
    require_rate(rate)
    if most < LEAST:
        raise RecipeError(
            f"most={most}: give {LEAST} values or more; the rate says how many of them are used"
        )
    data = Sorted(filled(values))
    zeros = values.numel() - len(data)
    if not len(data):
        return Levels(data.values.new_zeros(1), data.values.new_zeros(0), _price_of(data, rate), 0.0)
    exact = data.distinct(most - 1)
    found = []
    if exact is not None:
        cells = merged(data, zeros, boundaries(exact.double()), rate)
        if len(cells) == len(exact) + (zeros > 0):  # none was merged
            return _levels_of(cells, _price_of(data, rate))
        found.append((cells, _price_of(data, rate)))
    low, high = _steps(data, most)
    cells, price = _settled(data, zeros, low, most)
    enough = cells.entropy <= rate  # there are too few values for an even grid of so many bits
    found.append((cells, price) if enough else _bisected(data, zeros, (low, high), rate, most))
    if enough or rate >= HIGH:
        cells_beside = 3 if zeros else 1  # that of zeros may cut another one in two
        many = boundaries(cluster(data.values, most - cells_beside).double())
        found.append((merged(data, zeros, many, rate), price))
    cells, price = min(found, key=lambda one: one[0].error)
    return _levels_of(cells, price)


def require_rate(rate: Any, name: str = "") -> None:
    """Raise `RecipeError` for what is no rate of the weight of this name.

    >>> require_rate("2")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: rate='2': give bits a weight, more than 0 and at most 8
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= BITS:
        of = f" of '{name}'" if name else ""
        raise RecipeError(f"rate={rate!r}{of}: give bits a weight, more than 0 and at most {BITS}")


def _bisected(
    data: Sorted, zeros: int, steps: tuple[float, float], rate: float, most: int
) -> tuple[Cells, float]:
    """The cells of least error among those of at most `rate` that bisection of the step sees."""
    low, high = steps
    best: tuple[Cells, float] | None = None
    for _ in range(HALVINGS):
        step = math.sqrt(low * high)
        cells, price = _settled(data, zeros, step, most)
        low, high = (step, high) if cells.entropy > rate else (low, step)
        if cells.entropy <= rate and (best is None or cells.error < best[0].error):
            best = cells, price
    if best is None:  # one weight far away takes all bits that there are
        best = merged(data, zeros, cells.bounds, rate), price
    return best


def _settled(data: Sorted, zeros: int, step: float, most: int) -> tuple[Cells, float]:
    """From the grid of this step to where values and prices fit each other."""
    price = SLOPE * step * step
    centroids = _grid(data, step, most)
    costs = torch.zeros_like(centroids)
    for _ in range(ITERATIONS):
        slices = data.slices_of(intervals(centroids, costs))
        stays = (slices.counts > 0) | (centroids == 0)
        centroids, costs = followed(
            centroids[stays], slices.counts[stays], slices.sums[stays], price, zeros=zeros
        )
    place_of_zero = int((centroids == 0).nonzero()[0])
    return Cells.of(data, zeros, intervals(centroids, costs), zero=place_of_zero), price


def _grid(data: Sorted, step: float, most: int) -> Tensor:
    """Multiples of the step over all weights but the tails, steps that grow from there on, and zero."""
    low, high = _bulk(data)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = min(last, first + most - 2 * TAIL_VALUES - 2)
    middle = step * torch.arange(first, last + 1, dtype=torch.float64, device=data.values.device)
    below = _tail(middle[0].item() - float(data.values[0]), step, middle)
    above = _tail(float(data.values[-1]) - middle[-1].item(), step, middle)
    zero = middle.new_zeros(1)
    return torch.cat([middle[0] - below, middle, middle[-1] + above, zero]).unique()


def _tail(reach: float, step: float, like: Tensor) -> Tensor:
    """Distances from the even grid's end: even as long as that is enough, else growing to the farthest weight."""
    if reach <= 0:
        return like.new_zeros(0)
    count = min(TAIL_VALUES, math.ceil(reach / step))
    places = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
    growth = max(1.0, reach / step / count)
    return step * places * growth ** (places / count)


def _bulk(data: Sorted) -> tuple[float, float]:
    leave = int(TAIL * len(data))
    return float(data.values[leave]), float(data.values[len(data) - 1 - leave])


def _steps(data: Sorted, most: int) -> tuple[float, float]:
    """The least step whose even grid holds all weights but the tails, and one at which hardly anything is left."""
    low, high = _bulk(data)
    farthest = max(abs(float(data.values[0])), abs(float(data.values[-1])))
    least = (high - low) / (most - 2 * TAIL_VALUES - 2)
    return max(least, farthest * 2.0**-24), farthest * 16


def _price_of(data: Sorted, rate: float) -> float:
    """The slope of the least error of a normal distribution, about: 2 ln 2 · D, D = 1.42 σ² 4^-rate at high rates."""
    if not len(data):
        return 0.0
    everything = data.slices_of(data.values.new_zeros(0).double())
    return 2 * math.log(2) * 1.42 * float(everything.squares[0]) / len(data) * 4.0**-rate


def _levels_of(cells: Cells, price: float) -> Levels:
    return Levels(cells.centroids.float(), cells.bounds.float(), price, cells.entropy)


def followed(
    centroids: Tensor, counts: Tensor, sums: Tensor, price: float, *, zeros: int = 0
) -> tuple[Tensor, Tensor]:
    """Each centroid at the mean of its weights, but zero at zero, and what its code costs: sorted, in float64.

    `zeros` are weights beside those counted, which take the code of zero.
    """
    before = centroids.double()
    moved = torch.where((counts > 0) & (before != 0), sums / counts.clamp(min=1), before)
    every = counts.double() + zeros * (before == 0)
    costs = -price * (every.clamp(min=0.5) / (counts.sum() + zeros)).log2()
    order = moved.argsort()  # one without weights stays where it is, and others may pass it
    return moved[order], costs[order]


def intervals(centroids: Tensor, costs: Tensor) -> Tensor:
    """The bounds between the intervals in which each centroid (sorted) is the cheapest: (x - c)² + cost.

    One that is nowhere the cheapest has no numbers between its bounds.

    >>> intervals(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 9.0, 1.0]))
    tensor([1.2500, 1.2500])
    """
    heights = centroids.square() + costs
    bounds = heights.diff() / (2 * centroids.diff())
    if bool((bounds.diff() >= 0).all()) and bool(bounds.isfinite().all()):
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
    return centroids.new_tensor([*lower, math.inf])[places.to(centroids.device)]


def _meet(left: float, height: float, right: float, other: float) -> float:
    """Where the right parabola becomes the lower one."""
    if right == left:
        return -math.inf if other < height else math.inf
    return (other - height) / (2 * (right - left))
