"""k-means of numbers: on sorted values a cluster is a slice, and its sum is a difference of two prefix sums.

Lloyd's iterations (Deep Compression, 1510.00149, section 3): a boundary lies in the middle of two centroids and is found
by binary search, a centroid becomes the mean of its slice. That costs O(n log n) once and O(k log n) an iteration.

A cluster that is left empty splits the cluster with the largest error in two (the paper says nothing of it; with the linear
start, which reaches from the smallest to the largest value, clusters in the tails are often empty).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lianzhi.codebook.optimal import optimal
from lianzhi.codebook.places import place
from lianzhi.codebook.slices import Slices, Sorted, boundaries, not_numbers
from lianzhi.errors import RecipeError, did_you_mean

EXACT = 4096  # distinct values, or bins of a histogram, among which the best clusters are computed
FINE = 4  # bins a cluster below which the best clusters of bins are no better than the bins themselves
SAMPLE = 2**15  # values among which k-means++ draws
TAIL = 2**10  # of them the smallest, and as many of the largest
MOST = 2**16
PATIENCE = 10  # iterations after which an empty cluster is not waited for


def cluster(
    values: Tensor, clusters: int, *, init: str = "linear", iterations: int = 300, seed: int = 0
) -> Tensor:
    """The centroids, sorted, of at most `clusters` clusters of one-dimensional values.

    >>> cluster(torch.tensor([1.0, 1.5, -3.0, -2.0, 10.0]), 3)
    tensor([-2.5000,  1.2500, 10.0000])
    >>> cluster(torch.tensor([1.0, 2.0, 2.0]), 4)  # no more values than clusters: each is its own centroid
    tensor([1., 2.])

    `init`: ``linear`` (evenly from the smallest to the largest value: the paper's best, since it keeps the large
    weights), ``density`` (evenly in number), ``random`` (values), ``kmeans++`` (Arthur and Vassilvitskii, 2007), or
    ``optimal``: the best clusters there are where there are at most 4096 distinct values, else the best of a histogram
    of 4096 bins, finer where the error is, improved by iterations; never worse than ``linear``. `seed` is that of the
    two which draw.

    Returns float32 on the device of `values`. Raises `DataError` for values that are no finite numbers, and for float64
    ones beyond float32 or all too small for it, `RecipeError` for another `init` or number.

    >>> cluster(torch.tensor([1.0, float("nan")]), 2)
    Traceback (most recent call last):
        ...
    lianzhi.errors.DataError: cluster: 1 of 2 values are NaN or infinite; give weights that are numbers
    """
    if init not in INITS:
        raise RecipeError(f"init: '{init}' is not known{did_you_mean(init, INITS)}")
    if not 1 <= clusters <= MOST or iterations < 0:
        raise RecipeError(
            f"clusters={clusters}, iterations={iterations}: give 1 to {MOST} clusters, and 0 or more iterations"
        )
    data = Sorted(values)
    if not len(data):
        return data.values.clone()
    distinct = data.distinct(max(clusters, EXACT if init == "optimal" else 0))
    if distinct is not None and len(distinct) <= clusters:
        return distinct
    if init == "optimal" and distinct is not None:
        counts = data.below(distinct.nextafter(distinct.new_tensor(torch.inf))).diff(
            prepend=data.index.new_zeros(1)
        )
        return optimal(distinct.double(), counts.double(), clusters).float()
    generator = torch.Generator().manual_seed(seed)
    start = INITS[init](data, clusters, generator).double().sort().values
    settled = _settle(data, start, iterations)
    if init == "optimal":  # of many values it is the best of a histogram, which may be worse
        even = _settle(data, _linear(data, clusters, generator), iterations)
        settled = min(settled, even, key=lambda centroids: float(data.slices(centroids).errors().sum()))
    settled = settled.float().sort().values
    # differences of sums lose digits: two means of tiny values may be one number, or be out of range
    return settled.clamp(data.values[0], data.values[-1]).unique_consecutive()


def assign(values: Tensor, centroids: Tensor) -> Tensor:
    """The index (int32) of the nearest centroid (sorted, float32) of each value; the larger one of two as near.

    >>> assign(torch.tensor([[0.0, 1.4], [1.5, 9.0]]), torch.tensor([1.0, 2.0]))
    tensor([[0, 0],
            [1, 1]], dtype=torch.int32)
    """
    bounds = boundaries(centroids.double())
    return place(values.float(), bounds)


def iterate(values: Tensor, centroids: Tensor) -> Tensor:
    """One iteration of Lloyd's: each centroid (sorted, float32) becomes the mean of the values nearest to it, if it has any.

    >>> iterate(torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 2.0, 4.0]))
    tensor([0.5000, 2.0000, 5.0000])
    """
    values, before = values.reshape(-1).float(), centroids.double()
    if values.device.type != "cpu":  # elsewhere sums by code are taken in any order
        data = Sorted(values)
        return data.slices(before).means(before).float().sort().values if len(data) else centroids.clone()
    codes = assign(values, centroids)
    counts = torch.bincount(codes, minlength=len(centroids))
    sums = torch.bincount(codes, values.double(), len(centroids))
    if not bool(sums.isfinite().all()):
        raise not_numbers(values)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before).float().sort().values


def _settle(data: Sorted, centroids: Tensor, iterations: int) -> Tensor:
    """Lloyd's iterations until nothing moves; now and then empty clusters are given work."""
    for step in range(iterations):
        slices = data.slices(centroids)
        moved = slices.means(centroids)
        rests = torch.equal(moved, centroids)
        if rests or step % PATIENCE == PATIENCE - 1:
            empty = slices.counts == 0
            if bool(empty.any()):
                moved = _filled(slices, moved, empty)
            elif rests:
                break
        centroids = moved.sort().values
    slices = data.slices(centroids)
    return slices.means(centroids)[slices.counts > 0]


def _filled(slices: Slices, centroids: Tensor, empty: Tensor) -> Tensor:
    """Empty clusters split those of the largest error: one standard deviation to either side of the mean."""
    errors = slices.errors()
    count = min(int(empty.sum()), int((errors > 0).sum()))
    if not count:
        return centroids[~empty]
    worst = errors.topk(count).indices
    spread = (errors[worst] / slices.counts[worst]).sqrt()
    result = centroids.clone()
    result[empty.nonzero().flatten()[:count]] = centroids[worst] + spread
    result[worst] = centroids[worst] - spread
    return result


def _linear(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    low, high = data.values[0].double(), data.values[-1].double()
    steps = torch.linspace(0, 1, clusters, dtype=torch.float64, device=data.values.device)
    return low + (high - low) * (steps if clusters > 1 else steps + 0.5)


def _density(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    return data.quantiles(clusters)


def _random(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(len(data), (clusters,), generator=generator)
    return data.values[chosen.to(data.values.device)]


def _plus_plus(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    """A value is drawn with a probability that grows with the squared distance to those drawn before."""
    sample, weights = _sample(data)
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).tolist()
    distance, chosen = torch.ones_like(sample), []
    for draw in draws:
        total = (distance * weights).cumsum(0)
        place = torch.searchsorted(total, total[-1] * draw, right=True).clamp(max=len(sample) - 1)
        chosen.append(sample[place])
        nearest = (sample - chosen[-1]).square()
        distance = torch.minimum(distance, nearest) if len(chosen) > 1 else nearest
    return torch.stack(chosen)


def _sample(data: Sorted) -> tuple[Tensor, Tensor]:
    """SAMPLE values and how many each stands for: the TAIL smallest and largest, which matter most, stand for themselves."""
    if len(data) <= SAMPLE:
        values = data.values.double()
        return values, torch.ones_like(values)
    values = torch.cat(
        [
            data.values[:TAIL],
            data.quantiles(SAMPLE - 2 * TAIL, leave=TAIL),
            data.values[-TAIL:],
        ]
    ).double()
    weights = torch.full_like(values, (len(data) - 2 * TAIL) / (SAMPLE - 2 * TAIL))
    weights[:TAIL] = weights[-TAIL:] = 1
    return values, weights


def _optimal(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    """The best clusters of a histogram, or its bins where they are too few for that."""
    bins = data.between(_bins(data, max(clusters, EXACT)))
    if FINE * clusters > len(bins.counts):
        bins = data.between(_bins(data, clusters))
        return bins.sums / bins.counts
    return optimal(bins.sums / bins.counts, bins.counts.double(), clusters)


def _bins(data: Sorted, most: int) -> Tensor:
    """Where the bins of a histogram end, from 0 on: those of the largest errors are cut at their means until there are `most`."""
    ends = data.index.new_tensor([0, len(data)])
    while len(ends) <= most:
        bins = data.between(ends)
        errors = bins.errors()
        count = min(max(1, len(errors) // 4), most + 1 - len(ends), int((errors > 0).sum()))
        if not count:
            break
        worst = errors.topk(count).indices
        ends = torch.cat([ends, data.cut(ends[worst], ends[worst + 1], (bins.sums / bins.counts)[worst])])
        ends = ends.sort().values
    return ends


INITS: dict[str, Callable[[Sorted, int, torch.Generator], Tensor]] = {
    "linear": _linear,
    "density": _density,
    "random": _random,
    "kmeans++": _plus_plus,
    "optimal": _optimal,
}
