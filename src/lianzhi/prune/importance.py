"""What a criterion sees of a group, and how its scores are put together.

A criterion is a function from a `GroupView` to a list of scores, each one number a unit; low goes first. The
criteria on weights score each layer that *gives* the channels; `aggregate` combines the layers. An empty list
says that the criterion has nothing to say of this group, which is then left whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import Group, get_tensor
from lianzhi.graph.labels import Slot
from lianzhi.graph.rules import NORM, OUT


@dataclass(frozen=True)
class GroupView:
    """A group and the model that it belongs to."""

    group: Group
    model: nn.Module

    def __len__(self) -> int:
        return len(self.group)

    def rows(self, slot: Slot) -> Tensor:
        """The slices of one tensor that go with each unit: (units, everything else)."""
        tensor = get_tensor(self.model, slot.tensor).detach()
        picked = tensor.movedim(slot.axis, 0)[self.group.members[slot].reshape(-1)]
        return picked.reshape(len(self.group), -1).double().cpu()

    def producers(self) -> list[Slot]:
        """The weights whose output channels these are (convolution, linear; not norms, biases, consumers)."""
        return self.group.slots(OUT)

    def scales(self) -> list[Slot]:
        """The scales γ of the BatchNorm layers that these channels pass."""
        return self.group.slots(NORM)


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


def combine(found: Any, how: str, scale: str, group: Group) -> Tensor | None:
    """A criterion's answer as one score a unit; None where it has none. Scores are checked."""
    values = list(found) if isinstance(found, (list, tuple)) else [found]
    for value in values:
        if not isinstance(value, Tensor) or value.shape != (len(group),):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise GraphError(
                f"group '{group.name}': the criterion gave {got}; a tensor with one score for each of "
                f"{len(group)} channels is needed"
            )
        if not bool(torch.isfinite(value).all()):
            raise GraphError(
                f"group '{group.name}': the criterion gave a score that is not finite; are the weights?"
            )
    return normalize(aggregate([value.double().cpu() for value in values], how), scale) if values else None
