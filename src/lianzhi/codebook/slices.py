"""Sorted numbers, on which a cluster is a slice and its sum a difference of two prefix sums.

Prefix sums run outwards from zero, to either side: each adds a value at least as large as those before it. From the smallest
value on, a single -1e9 would take the digits of all sums after it. Nothing of the size of the data is kept but the values:
prefix sums are held once a block and completed inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lianzhi.errors import DataError

BLOCK = 64  # values between two stored prefix sums: a sum reads fewer than that, and they take a quarter of a byte a value
PART = 2**16  # values that are converted at a time, so that they stay in the processor's cache
SELECTED = 2**22  # values that are looked at at a time for those that are not zero
ROWS = 2**12  # sums that are taken at a time, for the same reason


def boundaries(centroids: Tensor) -> Tensor:
    """The smallest float32 numbers that are nearer to the next centroid, for each but the last.

    The middle of two neighbouring floats is none itself: rounded down, it would give the lower one away.

    >>> boundaries(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    tensor([1.5000, 3.0000])
    """
    middle = centroids[:-1] + (centroids[1:] - centroids[:-1]) / 2
    rounded = middle.float()
    return torch.where(rounded.double() < middle, _next(rounded), rounded)


def _next(numbers: Tensor) -> Tensor:
    """The next larger ones."""
    return torch.nextafter(numbers, torch.full_like(numbers, torch.inf))


@dataclass(frozen=True)
class Slices:
    """How many values each cluster has, their sum, the sum of their squares, and from the smallest to the largest."""

    counts: Tensor
    sums: Tensor
    squares: Tensor
    widths: Tensor

    def means(self, otherwise: Tensor) -> Tensor:
        """The mean of each; `otherwise` where there is none."""
        return torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), otherwise)

    def errors(self) -> Tensor:
        """The squared distances from the mean, summed: at most a quarter of the width squared, for each value.

        The difference of squares loses digits far from zero; of equal values it must be zero.
        """
        found = (self.squares - self.sums.square() / self.counts.clamp(min=1)).clamp(min=0)
        return torch.minimum(found, self.counts * (self.widths / 2).square())


class Sorted:
    """Sorted float32 values, and what makes the sums of their slices cheap."""

    def __init__(self, values: Tensor) -> None:
        if values.dim() != 1 or not values.is_floating_point():
            raise DataError(
                f"cluster: one-dimensional floating values are needed, not {values.dtype} of shape {tuple(values.shape)}"
            )
        self.values = _sorted(values.detach())
        if len(values) and not (self.values[0].isfinite() & self.values[-1].isfinite()):
            raise not_numbers(values)
        _require_in_range(values, self.values)
        self.index = torch.arange(BLOCK, device=values.device)
        self.negative = int(self.below(self.values.new_zeros(1)))
        sides = [_prefix(self.values[self.negative :], False), _prefix(self.values[: self.negative], True)]
        self.prefix, self.turn = torch.cat(sides), len(sides[0])

    def __len__(self) -> int:
        return len(self.values)

    def below(self, bounds: Tensor) -> Tensor:
        """How many values are below each bound."""
        return torch.searchsorted(self.values, bounds)

    def sums_before(self, index: Tensor) -> Tensor:
        """Sums of values and of squares, ``(len(index), 2)``, from zero to the first `index` values; negative on its left."""
        return torch.cat([self._sums(part) for part in index.split(ROWS)])

    def _sums(self, index: Tensor) -> Tensor:
        left = index < self.negative
        away = (index - self.negative).abs_()
        block, sign = away // BLOCK, torch.where(left, -1, 1)[:, None]
        first = self.negative - left.long() + sign[:, 0] * block * BLOCK
        inside = (sign * self.index).add_(first[:, None]).clamp_(0, len(self) - 1)
        rest = self.values[inside].double().mul_(self.index < (away % BLOCK)[:, None])
        sums = torch.stack([rest.sum(1), rest.square_().sum(1)], 1)
        return sums.add_(self.prefix[block + left * self.turn]).mul_(sign)

    def slices(self, centroids: Tensor) -> Slices:
        """The values by their nearest centroid."""
        return self.slices_of(boundaries(centroids))

    def slices_of(self, bounds: Tensor) -> Slices:
        """The values between bounds (sorted); one that is a bound is above it."""
        inner = self.below(bounds.float())
        return self.between(torch.cat([self.index.new_zeros(1), inner, self.index.new_tensor([len(self)])]))

    def between(self, ends: Tensor) -> Slices:
        """The slices from each of `ends` to the next."""
        total = self.sums_before(ends).diff(dim=0)
        lowest = self.values[ends[:-1].clamp(max=len(self) - 1)].double()
        highest = self.values[(ends[1:] - 1).clamp(min=0)].double()
        return Slices(ends.diff(), total[:, 0], total[:, 1], highest - lowest)

    def cut(self, starts: Tensor, ends: Tensor, at: Tensor) -> Tensor:
        """Where slices of distinct values are cut in two: before the first value that is not below `at`, so that both have some."""
        bound = at.float()
        bound = torch.where(bound.double() < at, _next(bound), bound)
        lowest, highest = self.values[starts], self.values[ends - 1]
        return self.below(torch.minimum(torch.maximum(bound, _next(lowest)), highest))

    def distinct(self, most: int) -> Tensor | None:
        """The distinct values, if there are no more than `most`."""
        found = self.values[:1]
        for part in self.values.split(PART):
            found = torch.cat([found[:-1], torch.unique_consecutive(torch.cat([found[-1:], part]))])
            if len(found) > most:
                return None
        return found

    def quantiles(self, count: int, leave: int = 0) -> Tensor:
        """Values at `count` even steps of their order, each in the middle of its step; `leave` values at either end are left out."""
        steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        size = len(self) - 2 * leave
        return self.values[leave + (steps * size).long().clamp(max=size - 1).to(self.values.device)]


def filled(flat: Tensor) -> Tensor:
    """The values that are not zero, the tensor itself if all are; selecting takes eight bytes an element, so it is done in parts.

    >>> filled(torch.tensor([0.0, 1.0, -0.0, 2.0]))
    tensor([1., 2.])
    """
    counts = [int(piece.count_nonzero()) for piece in flat.split(SELECTED)]
    if sum(counts) == len(flat):
        return flat
    found = flat.new_empty(sum(counts))
    for piece, place in zip(flat.split(SELECTED), found.split(counts), strict=True):
        place.copy_(piece[piece != 0])
    return found


def not_numbers(values: Tensor) -> DataError:
    bad = int((~values.isfinite()).sum())
    if not bad:
        bad = int((~values.float().isfinite()).sum())
        return DataError(
            f"cluster: {bad} of {len(values)} values are beyond float32, in which clusters are computed; scale them down"
        )
    return DataError(
        f"cluster: {bad} of {len(values)} values are NaN or infinite; give weights that are numbers"
    )


def _require_in_range(values: Tensor, ordered: Tensor) -> None:
    """Refuse float64 values that are all too small for float32; a few beside larger ones lose nothing that k-means sees."""
    if values.dtype != torch.float64 or not len(values):
        return
    largest = float(torch.maximum(-ordered[0], ordered[-1]))
    if largest < torch.finfo(torch.float32).tiny and bool((values.float() != values).any()):
        raise DataError(
            f"cluster: all {len(values)} values are below {torch.finfo(torch.float32).tiny:.1e}, too small for float32, "
            f"in which clusters are computed; scale them up"
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


def _prefix(values: Tensor, backwards: bool) -> Tensor:
    """Sums of values and of squares before each block of BLOCK values, and at the end; `backwards` from the last value on."""
    sums = [torch.zeros(1, 2, dtype=torch.float64, device=values.device)]
    for start in range(0, len(values), PART):
        end = len(values) - start
        part = (values[max(0, end - PART) : end] if backwards else values[start : start + PART]).double()
        if len(part) % BLOCK:
            short = -len(part) % BLOCK
            part = torch.nn.functional.pad(part, (short, 0) if backwards else (0, short))
        blocks = part.view(-1, BLOCK)
        found = torch.stack([blocks.sum(1), blocks.square_().sum(1)], 1)
        sums.append(found.flip(0) if backwards else found)
    return torch.cat(sums).cumsum(0)
