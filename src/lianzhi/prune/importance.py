"""What a criterion sees of a group, and how its scores are put together.

A criterion is a function from a `GroupView` to one score a unit; low goes first. The criteria on weights
score each layer that *gives* the channels, then aggregate over these layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import RecipeError
from lianzhi.graph import get_tensor
from lianzhi.graph.groups import Group
from lianzhi.graph.labels import Slot

Criterion = Callable[..., Tensor]


@dataclass(frozen=True)
class GroupView:
    """A group and the tensors behind it."""

    group: Group
    model: nn.Module
    seed: int = 0
    norms: frozenset[str] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.group)

    def rows(self, slot: Slot) -> Tensor:
        """The slices of one tensor that go with each unit: (units, everything else)."""
        tensor = get_tensor(self.model, slot.tensor).detach()
        indices = self.group.members[slot]
        picked = tensor.movedim(slot.axis, 0)[indices.reshape(-1)]
        return picked.reshape(len(self.group), -1).double()

    def producers(self) -> list[Slot]:
        """The weights whose output channels these are (convolution, linear; not norms, biases, consumers)."""
        return [
            slot
            for slot in self.group.members
            if slot.axis == 0 and get_tensor(self.model, slot.tensor).dim() >= 2 and slot.tensor not in self.norms
        ]

    def scales(self) -> list[Slot]:
        """The scales γ of the normalisation layers that these channels pass."""
        return [slot for slot in self.group.members if slot.tensor in self.norms]


def aggregate(scores: list[Tensor], how: str) -> Tensor:
    """Combine the scores of a group's layers, (layers, units) → (units).

    >>> aggregate([torch.tensor([1., 2.]), torch.tensor([3., 2.])], "mean")
    tensor([2., 2.])
    """
    stacked = torch.stack(scores)
    if how == "mean":
        return stacked.mean(0)
    if how == "sum":
        return stacked.sum(0)
    if how == "max":
        return stacked.amax(0)
    if how == "first":
        return stacked[0]
    raise RecipeError(f"aggregate: '{how}' is not one of mean, sum, max, first")


def normalize(scores: Tensor, how: str) -> Tensor:
    """Make scores of different layers comparable.

    >>> normalize(torch.tensor([1., 3.]), "mean")
    tensor([0.5000, 1.5000])
    """
    if how == "none":
        return scores
    if how == "mean":
        return scores / scores.mean().clamp_min(1e-30)
    if how == "max":
        return scores / scores.amax().clamp_min(1e-30)
    if how == "standard":
        return (scores - scores.mean()) / scores.std(unbiased=False).clamp_min(1e-30)
    raise RecipeError(f"normalize: '{how}' is not one of none, mean, max, standard")


def producer_scores(view: GroupView, measure: Callable[[Tensor], Tensor], **options: Any) -> list[Tensor]:
    """`measure` of each producing layer's rows, (units, fan_in) → (units)."""
    return [measure(view.rows(slot), **options) for slot in view.producers() or list(view.group.members)]
