"""Labels: which channels must go together.

Every index of every axis of every parameter or buffer is an *atom* and has an integer label. Labels flow
through the graph with the values; where two meet, they are tied. Components of tied labels are the units
that pruning removes. Label 0 means "cannot go".

Ties are made in three phases, the finest first, each on the components that the one before it left:

1. labels that meet element by element, on the same dimensions;
2. labels that meet on overlapping dimensions (a head with each of its channels);
3. the box constraint: a tensor is dense, so what survives of it must be a product of what survives along
   each dimension. Labels that vary on several dimensions are tied along all but the largest.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor

FIXED = 0


@dataclass(frozen=True)
class Slot:
    """One axis of one tensor of the model, by the tensor's first name."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class Components:
    """The component of each label, and why those that are frozen are."""

    of: Tensor
    reasons: dict[int, str]

    @functools.cached_property
    def count(self) -> int:
        """How many components there are."""
        return int(self.of.max()) + 1

    def resolve(self, layer: Tensor) -> Tensor:
        """The components of compacted labels, plus one; `FIXED` for all that is frozen. Compacted anew."""
        return compact(self._shown[self.of[core(layer)]]).expand(layer.shape)

    @functools.cached_property
    def _shown(self) -> Tensor:
        """For each component its number plus one, `FIXED` if it is frozen."""
        shown = torch.arange(1, self.count + 1)
        shown[list(self.reasons)] = FIXED
        return shown


@dataclass
class Labels:
    """Hands out labels, collects what ties and freezes them, and solves for the components."""

    slots: dict[Slot, Tensor] = field(default_factory=dict)
    count: int = 1
    _ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _overlaps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _boxes: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    _freezes: list[tuple[Tensor, str]] = field(default_factory=list)

    def axis(self, tensor: str, axis: int, size: int) -> Tensor:
        """The labels of one axis of a tensor: fresh at first, the same ever after."""
        slot = Slot(tensor, axis)
        if slot not in self.slots:
            self.slots[slot] = self.fresh(size)
        return self.slots[slot]

    def fresh(self, size: int) -> Tensor:
        """Labels that belong to no tensor (the zeros that a pad adds)."""
        start = self.count
        self.count += size
        return torch.arange(start, start + size)

    def tie(self, left: Tensor, right: Tensor) -> None:
        """These go together, element by element."""
        self._ties.append(_pairs(left, right))

    def tie_overlap(self, left: Tensor, right: Tensor) -> None:
        """These go together, but are on different dimensions: tied once the first phase is done."""
        self._overlaps.append((left, right))

    def box(self, layer: Tensor) -> None:
        """What survives of this must be a product of what survives along each dimension."""
        self._boxes.setdefault((layer.data_ptr(), *layer.shape, *layer.stride()), layer)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """None of these can go, and why."""
        self._freezes.append((labels.reshape(-1).unique(), reason))

    def solve(self) -> Components:
        """Carry out the three phases."""
        self._ties += [_pairs(left, right) for left, right in self._overlaps]
        self._overlaps.clear()
        components = self._components()
        changed = True
        while changed:
            changed = False
            for layer in self._boxes.values():
                resolved = components.resolve(layer)
                dims = varying_dims(resolved)
                if len(dims) > 1:
                    largest = max(dims, key=lambda dim: (layer.shape[dim], dim))
                    for dim in dims - {largest}:
                        self.tie(layer, layer.narrow(dim, 0, 1))
                    components, changed = self._components(), True
        return components

    def _components(self) -> Components:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        rows, columns = [torch.tensor([FIXED])], [torch.tensor([FIXED])]
        frozen = list(self._freezes)
        for left, right in self._ties:
            fixed = (left == FIXED) | (right == FIXED)
            rows.append(left[~fixed])
            columns.append(right[~fixed])
            if fixed.any():
                frozen.append(
                    (torch.maximum(left, right)[fixed].unique(), "meets values that are not channels")
                )
        row, column = torch.cat(rows).numpy(), torch.cat(columns).numpy()
        shape = (self.count, self.count)
        pairs = coo_matrix(([1] * len(row), (row, column)), shape=shape)
        component = torch.from_numpy(connected_components(pairs, directed=False)[1]).long()
        reasons: dict[int, str] = {int(component[FIXED]): "fixed"}
        for labels, reason in frozen:
            for index in component[labels[labels != FIXED]].unique().tolist():
                reasons.setdefault(index, reason)
        return Components(component, reasons)


def _pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of labels side by side, one copy along dimensions on which neither depends."""
    left, right = torch.broadcast_tensors(left, right)
    for dim in range(left.dim()):
        if left.stride(dim) == 0 and right.stride(dim) == 0:
            left, right = left.narrow(dim, 0, 1), right.narrow(dim, 0, 1)
    return left.reshape(-1), right.reshape(-1)


def core(labels: Tensor) -> Tensor:
    """Compacted labels with one index along each dimension on which they do not depend."""
    for dim in range(labels.dim()):
        if labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compact(labels: Tensor) -> Tensor:
    """Store one copy along each dimension on which the labels do not depend (stride 0), keeping the shape.

    >>> compact(torch.tensor([[1, 1], [2, 2]])).stride()
    (1, 0)
    """
    shape = labels.shape
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, 1)
        if labels.shape[dim] == 1 or labels.stride(dim) == 0 or bool((labels == first).all()):
            labels = first
    return labels.contiguous().expand(shape)


def varying_dims(labels: Tensor) -> frozenset[int]:
    """The dimensions on which compacted labels depend. Labels that are the same everywhere: none."""
    return frozenset(dim for dim in range(labels.dim()) if labels.stride(dim) != 0 and labels.shape[dim] > 1)


def spread(vector: Tensor, dim: int, shape: tuple[int, ...]) -> Tensor:
    """A vector of labels along one dimension of a value of this shape.

    >>> spread(torch.tensor([7, 8]), 1, (2, 2)).tolist()
    [[7, 8], [7, 8]]
    """
    view = [1] * len(shape)
    view[dim] = len(vector)
    return vector.view(view).expand(shape)


def along(labels: Tensor, dim: int) -> Tensor:
    """The vector of labels along one dimension (of labels that vary on it alone)."""
    for other in range(labels.dim()):
        if other != dim:
            labels = labels.narrow(other, 0, 1)
    return labels.reshape(-1)
