"""k-means of numbers: on sorted values a cluster is a slice, and its sum is a difference of two prefix sums.

Lloyd's iterations (Deep Compression, 1510.00149, section 3): a boundary lies in the middle of two centroids and is found
by binary search, a centroid becomes the mean of its slice. That costs O(n log n) once and O(k log n) an iteration, and
nothing of the size of the data is kept but the sorted values: prefix sums are held once a block and completed inside it.

A cluster that is left empty splits the cluster with the largest error in two (the paper says nothing of it; with the linear
start, which reaches from the smallest to the largest value, clusters in the tails are often empty).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lianzhi.codebook.optimal import optimal
from lianzhi.codebook.places import place
from lianzhi.errors import DataError, RecipeError, did_you_mean

BLOCK = 64  # values between two stored prefix sums: a sum reads fewer than that, and they take a quarter of a byte a value
PART = 2**22  # values that are converted at a time
EXACT = 4096  # distinct values, or bins of a histogram, among which the best clusters are computed
SAMPLE = 2**15  # values among which k-means++ draws
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
    of 4096 bins, improved by iterations. `seed` is that of the two which draw.

    Returns float32 on the device of `values`. Raises `DataError` for values that are no finite numbers, `RecipeError`
    for another `init` or number.

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
    settled = _settle(data, start, iterations).float().sort().values
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


def iterate(values: Tensor, centroids: Tensor, counted: Tensor) -> Tensor:
    """One iteration of Lloyd's: each centroid (sorted, float32) becomes the mean of the values nearest to it, if it has any.

    Only those count for which `counted` (bool, of the shape of `values`) is true.

    >>> values = torch.tensor([0.0, 1.0, 5.0, 9.0])
    >>> iterate(values, torch.tensor([1.0, 2.0, 4.0]), values < 9)
    tensor([0.5000, 2.0000, 5.0000])
    """
    # the others are left out where that takes less time than they do
    many = 2 * int(counted.count_nonzero()) >= counted.numel()
    values = (values if many else values[counted]).float()
    before = centroids.double()
    if values.device.type != "cpu":  # elsewhere sums by code are taken in any order
        data = Sorted(values[counted] if many else values)
        return data.slices(before).means(before).float().sort().values if len(data) else centroids.clone()
    codes = assign(values, centroids)
    codes = (torch.where(counted, codes, len(centroids)) if many else codes).reshape(-1)
    counts = torch.bincount(codes, minlength=len(centroids) + 1)[:-1]
    sums = torch.bincount(codes, values.reshape(-1).double(), len(centroids) + 1)[:-1]
    if not bool(sums.isfinite().all()):
        raise _not_numbers(values[counted] if many else values)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before).float().sort().values


def boundaries(centroids: Tensor) -> Tensor:
    """The smallest float32 numbers that are nearer to the next centroid, for each but the last.

    The middle of two neighbouring floats is none itself: rounded down, it would give the lower one away.

    >>> boundaries(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    tensor([1.5000, 3.0000])
    """
    middle = centroids[:-1] + (centroids[1:] - centroids[:-1]) / 2
    rounded = middle.float()
    up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.double() < middle, up, rounded)


@dataclass(frozen=True)
class Slices:
    """How many values each cluster has, their sum, and the sum of their squares."""

    counts: Tensor
    sums: Tensor
    squares: Tensor

    def means(self, otherwise: Tensor) -> Tensor:
        """The mean of each; `otherwise` where there is none."""
        return torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), otherwise)

    def errors(self) -> Tensor:
        """The squared distances from the mean, summed."""
        return (self.squares - self.sums.square() / self.counts.clamp(min=1)).clamp(min=0)


class Sorted:
    """Sorted float32 values, and what makes the sums of their slices cheap."""

    def __init__(self, values: Tensor) -> None:
        if values.dim() != 1 or not values.is_floating_point():
            raise DataError(
                f"cluster: one-dimensional floating values are needed, not {values.dtype} of shape {tuple(values.shape)}"
            )
        self.values = _sorted(values.detach())
        if len(values) and not (self.values[0].isfinite() & self.values[-1].isfinite()):
            raise _not_numbers(values)
        self.index = torch.arange(BLOCK, device=values.device)
        sums = [_block_sums(part) for part in self.values.split(PART)]
        zero = torch.zeros(1, 2, dtype=torch.float64, device=values.device)
        self.prefix = torch.cat([zero, *sums]).cumsum(0)

    def __len__(self) -> int:
        return len(self.values)

    def below(self, bounds: Tensor) -> Tensor:
        """How many values are below each bound."""
        return torch.searchsorted(self.values, bounds)

    def sums_before(self, index: Tensor) -> Tensor:
        """The sums of the first `index` values and of their squares: ``(len(index), 2)``."""
        block = index // BLOCK
        start = block * BLOCK
        inside = start[:, None] + self.index
        rest = self.values[inside.clamp(max=len(self) - 1)].double() * (inside < index[:, None])
        return self.prefix[block] + torch.stack([rest.sum(1), rest.square().sum(1)], 1)

    def slices(self, centroids: Tensor) -> Slices:
        """The values by their nearest centroid."""
        ends = torch.cat([self.below(boundaries(centroids)), self.index.new_tensor([len(self)])])
        sums = self.sums_before(ends)
        counts = ends.diff(prepend=ends.new_zeros(1))
        total = sums.diff(dim=0, prepend=sums.new_zeros(1, 2))
        return Slices(counts, total[:, 0], total[:, 1])

    def distinct(self, most: int) -> Tensor | None:
        """The distinct values, if there are no more than `most`."""
        found = self.values[:1]
        for part in self.values.split(PART):
            found = torch.cat([found[:-1], torch.unique_consecutive(torch.cat([found[-1:], part]))])
            if len(found) > most:
                return None
        return found

    def quantiles(self, count: int) -> Tensor:
        """Values at `count` even steps of their order, each in the middle of its step."""
        steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return self.values[(steps * len(self)).long().clamp(max=len(self) - 1).to(self.values.device)]


def _not_numbers(values: Tensor) -> DataError:
    bad = int((~values.isfinite()).sum())
    if not bad:
        bad = int((~values.float().isfinite()).sum())
        return DataError(
            f"cluster: {bad} of {len(values)} values are beyond float32, in which clusters are computed; scale them down"
        )
    return DataError(
        f"cluster: {bad} of {len(values)} values are NaN or infinite; give weights that are numbers"
    )


def _sorted(values: Tensor) -> Tensor:
    """A sorted float32 copy. NumPy's sort uses the processor's vectors and needs no indices."""
    copy = (
        values.float()
        if values.dtype != torch.float32
        else values.clone(memory_format=torch.contiguous_format)
    )
    if copy.device.type != "cpu":
        return copy.sort().values
    copy.numpy().sort()
    return copy


def _block_sums(part: Tensor) -> Tensor:
    """The sum and the sum of squares of each block of BLOCK values; the last one may be short."""
    padded = torch.nn.functional.pad(part.double(), (0, -len(part) % BLOCK)).view(-1, BLOCK)
    return torch.stack([padded.sum(1), padded.square().sum(1)], 1)


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
    sample = data.quantiles(min(len(data), SAMPLE)).double()
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).tolist()
    chosen = [sample[int(draws[0] * len(sample))]]
    distance = (sample - chosen[0]).square()
    for draw in draws[1:]:
        total = distance.cumsum(0)
        place = torch.searchsorted(total, total[-1] * draw, right=True).clamp(max=len(sample) - 1)
        chosen.append(sample[place])
        distance = torch.minimum(distance, (sample - chosen[-1]).square())
    return torch.stack(chosen)


def _optimal(data: Sorted, clusters: int, generator: torch.Generator) -> Tensor:
    """The best clusters of a histogram of equal bins."""
    low, high = data.values[0].double(), data.values[-1].double()
    edges = low + (high - low) * torch.arange(1, EXACT, dtype=torch.float64, device=low.device) / EXACT
    ends = torch.cat([data.below(edges.float()), data.index.new_tensor([len(data)])])
    sums = data.sums_before(ends)[:, 0].diff(prepend=low.new_zeros(1))
    counts = ends.diff(prepend=ends.new_zeros(1))
    used = counts > 0
    return optimal(sums[used] / counts[used], counts[used].double(), clusters)


INITS: dict[str, Callable[[Sorted, int, torch.Generator], Tensor]] = {
    "linear": _linear,
    "density": _density,
    "random": _random,
    "kmeans++": _plus_plus,
    "optimal": _optimal,
}
