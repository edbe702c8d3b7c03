"""Units that touch the same axes of the same tensors, equally often, are one family; found without a loop over units.

Each unit has a class, refined axis by axis: units are alike if they were so before and this axis has as many
indices of each. Numbers of atoms go into the hundreds of thousands for a model of the size of BERT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lianzhi.graph.labels import Components, Slot

Family = tuple[Tensor, dict[Slot, Tensor]]  # units; for each axis, (units, k) indices


def families(
    slots: Mapping[Slot, Tensor], components: Components, pieces: Sequence[Tensor] = ()
) -> list[Family]:
    """The families of units that are not frozen, in the order in which they are first met.

    `pieces` are sets of labels that a slice cuts out: units of a piece are not alike with those beside it. A
    family keeps at least one unit, so that no piece is ever empty.
    """
    live_units = torch.ones(components.count, dtype=torch.bool)
    live_units[list(components.reasons)] = False
    kind = torch.zeros(components.count, dtype=torch.long)
    rank = torch.full((components.count,), sum(map(len, slots.values())))
    found: list[tuple[Slot, Tensor, Tensor]] = []
    classes, met = 1, 0
    for slot, labels in slots.items():
        units = components.of[labels]
        indices = torch.nonzero(live_units[units]).reshape(-1)
        units = units[indices]
        if len(units):
            own, counts = units.unique(return_counts=True)
            inverse = (kind[own] * (int(counts.max()) + 1) + counts).unique(return_inverse=True)[1]
            kind[own] = classes + inverse
            classes += int(inverse.max()) + 1
            rank.scatter_reduce_(0, units, met + indices, "amin")
            found.append((slot, indices, units))
        met += len(labels)
    for labels in pieces:
        own = components.of[labels].unique()
        own = own[live_units[own]]
        inverse = kind[own].unique(return_inverse=True)[1]
        if len(own):
            kind[own] = classes + inverse
            classes += int(inverse.max()) + 1
    result: dict[int, Family] = {}
    for slot, indices, units in found:
        for one in kind[units].unique().tolist():
            here = kind[units] == one
            order = torch.argsort(rank[units[here]], stable=True)
            ordered = units[here][order]
            own = ordered.unique_consecutive()
            result.setdefault(one, (own, {}))[1][slot] = indices[here][order].view(len(own), -1)
    return sorted(result.values(), key=lambda family: int(rank[family[0][0]]))
