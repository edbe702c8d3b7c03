"""Labels: which channels must go together.

Every index of every axis of every parameter or buffer is an *atom* and has an integer label. Labels flow
through the graph with the values; where two meet, they are tied. Components of tied labels are the units
that pruning removes. Label 0 means "cannot go".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

FIXED = 0


@dataclass(frozen=True)
class Slot:
    """One axis of one tensor of the model, by the tensor's first name."""

    tensor: str
    axis: int


@dataclass
class Labels:
    """Hands out labels, collects ties and freezes, and computes the components."""

    slots: dict[Slot, int] = field(default_factory=dict)
    sizes: dict[Slot, int] = field(default_factory=dict)
    count: int = 1
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    freezes: list[tuple[Tensor, str]] = field(default_factory=list)

    def axis(self, tensor: str, axis: int, size: int) -> Tensor:
        """The labels of one axis of a tensor: fresh at first, the same ever after."""
        slot = Slot(tensor, axis)
        if slot not in self.slots:
            self.slots[slot] = self.count
            self.sizes[slot] = size
            self.count += size
        start = self.slots[slot]
        return torch.arange(start, start + size)

    def fresh(self, size: int) -> Tensor:
        """Labels that belong to no tensor (the zeros that a pad adds)."""
        start = self.count
        self.count += size
        return torch.arange(start, start + size)

    def tie(self, left: Tensor, right: Tensor) -> None:
        """These go together, element by element."""
        left, right = torch.broadcast_tensors(left, right)
        self.ties.append((left.reshape(-1), right.reshape(-1)))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """None of these can go, and why."""
        self.freezes.append((labels.reshape(-1).unique(), reason))

    def components(self) -> tuple[Tensor, dict[int, str]]:
        """Return the component of each label, and the reason for each component that is frozen."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        rows, columns = [torch.tensor([FIXED])], [torch.tensor([FIXED])]
        frozen: list[tuple[Tensor, str]] = list(self.freezes)
        for left, right in self.ties:
            fixed = (left == FIXED) | (right == FIXED)
            rows.append(left[~fixed])
            columns.append(right[~fixed])
            if fixed.any():
                frozen.append((torch.maximum(left, right)[fixed].unique(), "meets values that are not channels"))
        row, column = torch.cat(rows).numpy(), torch.cat(columns).numpy()
        pairs = coo_matrix(([1] * len(row), (row, column)), shape=(self.count, self.count))
        component = torch.from_numpy(connected_components(pairs, directed=False)[1]).long()
        reasons: dict[int, str] = {int(component[FIXED]): "fixed"}
        for labels, reason in frozen:
            for index in component[labels[labels != FIXED]].unique().tolist():
                reasons.setdefault(index, reason)
        return component, reasons


def constant_dims(labels: Tensor) -> list[int]:
    """The dimensions along which the labels do not change."""
    dims = []
    for dim in range(labels.dim()):
        if labels.shape[dim] == 1 or labels.stride(dim) == 0 or bool((labels == labels.narrow(dim, 0, 1)).all()):
            dims.append(dim)
    return dims


def compact(labels: Tensor) -> Tensor:
    """Store one copy along each dimension on which the labels do not depend (stride 0), keeping the shape."""
    shape = labels.shape
    for dim in constant_dims(labels):
        labels = labels.narrow(dim, 0, 1)
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
