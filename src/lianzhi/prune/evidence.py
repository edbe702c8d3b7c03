"""What criteria know beside the weights. It is computed from data once for the whole graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lianzhi.errors import RecipeError
from lianzhi.graph import Graph, Groups
from lianzhi.graph.labels import Slot
from lianzhi.prune import activations, gradients
from lianzhi.prune.activations import Activity
from lianzhi.prune.criteria.registry import ACTIVATIONS, FISHER, GRADIENTS


@dataclass(frozen=True)
class Evidence:
    """By group: activities, first-order products (batches, units) and Fisher terms (units) a tensor."""

    what: str | None = None
    activations: dict[str, list[Activity]] = field(default_factory=dict)
    gradients: dict[str, dict[Slot, Tensor]] = field(default_factory=dict)
    fisher: dict[str, dict[Slot, Tensor]] = field(default_factory=dict)


def check(what: str | None, criterion: str, calibration: Any, loss: Any) -> None:
    """Refuse data that is missing, and data that nobody would read."""
    if what is None:
        if calibration is not None or loss is not None:
            raise RecipeError(f"criterion '{criterion}' reads no data: leave out calibration and loss")
        return
    if calibration is None:
        kind = "batches" if what == ACTIVATIONS else "(batch, labels) pairs"
        raise RecipeError(f"criterion '{criterion}' needs calibration=…, an iterable of {kind}")
    if what == ACTIVATIONS and loss is not None:
        raise RecipeError(f"criterion '{criterion}' reads activations only: leave out loss")
    if what in (GRADIENTS, FISHER) and not callable(loss):
        got = "" if loss is None else f", not a {type(loss).__name__}"
        raise RecipeError(f"criterion '{criterion}' needs loss=…, a function of (outputs, labels){got}")


def collect(
    what: str | None,
    graph: Graph,
    groups: Groups,
    calibration: Iterable[Any] | None,
    example_inputs: Any,
    loss: Callable[[Any, Any], Tensor] | None,
) -> Evidence:
    """Compute what a criterion declared with `needs`, of data that passed `check`."""
    if what is None:
        return Evidence()
    assert calibration is not None
    if what == ACTIVATIONS:
        return Evidence(what, activations=activations.collect(graph, groups, calibration, example_inputs))
    assert loss is not None
    if what == GRADIENTS:
        found = gradients.first_order(graph, groups, calibration, example_inputs, loss)
        return Evidence(what, gradients=found)
    return Evidence(what, fisher=gradients.second_order(graph, groups, calibration, example_inputs, loss))
