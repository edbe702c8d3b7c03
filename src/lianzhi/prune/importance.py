"""What a criterion sees of a group, and how its scores are put together.

A criterion is a function from a `GroupView` to a list of scores, each one number a unit; low goes first. The
criteria on weights score each layer that *gives* the channels; `aggregate` combines the layers. An empty list
says that the criterion has nothing to say of this group, which is then left whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import Group, get_tensor
from lianzhi.graph.labels import Slot
from lianzhi.graph.rules import IN, NORM, OUT
from lianzhi.prune.activations import Activity
from lianzhi.prune.evidence import Evidence

OVER = ("group", "producers", "consumers")
COST = "cost"


@dataclass(frozen=True)
class GroupView:
    """A group and the model that it belongs to."""

    group: Group
    model: nn.Module
    evidence: Evidence = field(default_factory=Evidence)

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

    def convolutions(self) -> list[Slot]:
        """The producers that are convolutions."""
        return [slot for slot in self.producers() if get_tensor(self.model, slot.tensor).dim() > 2]

    def dense(self) -> list[Slot]:
        """The producers that are dense layers."""
        return [slot for slot in self.producers() if get_tensor(self.model, slot.tensor).dim() == 2]

    @property
    def activations(self) -> list[Activity]:
        """What calibration data showed of each activation (of a criterion that `needs` activations)."""
        self._require("activations")
        return self.evidence.activations.get(self.group.name, [])

    def gradients(self, over: str = "group") -> list[Tensor]:
        """Σ w·∂L/∂w of each unit's slices, (batches, units), one a tensor (of a criterion that `needs` gradients).

        `over`: all tensors of the group, its `producers` (with their biases and norms), or its `consumers`.
        """
        self._require("gradients")
        return self._of(self.evidence.gradients.get(self.group.name, {}), over)

    def fisher(self, over: str = "group") -> list[Tensor]:
        """Σ h·w² of each unit's slices, (units,), one a tensor (of a criterion that `needs` fisher)."""
        self._require("fisher")
        return self._of(self.evidence.fisher.get(self.group.name, {}), over)

    def _of(self, found: dict[Slot, Tensor], over: str) -> list[Tensor]:
        if over not in OVER:
            raise RecipeError(f"over: '{over}' is not one of {', '.join(OVER)}")
        consumed = set(self.group.slots(IN))
        return [
            value
            for slot, value in found.items()
            if over == "group" or (slot in consumed) == (over == "consumers")
        ]

    def _require(self, what: str) -> None:
        if self.evidence.what != what:
            raise RecipeError(
                f"a criterion read the {what} of group '{self.group.name}' without declaring it; "
                f'put @lz.prune.criteria.needs("{what}") above it'
            )


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
    if how in ("none", COST):  # a cost is known where the budget is
        return scores
    if how == "mean":
        return scores / scores.abs().mean().clamp_min(1e-30)
    if how == "max":
        return scores / scores.abs().amax().clamp_min(1e-30)
    if how == "standard":
        return (scores - scores.mean()) / scores.std(unbiased=False).clamp_min(1e-30)
    raise RecipeError(f"normalize: '{how}' is not one of none, mean, max, standard, {COST}")


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
