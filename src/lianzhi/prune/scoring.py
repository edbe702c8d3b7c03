"""From a model and a criterion to the groups that can be pruned, with one score a unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import Graph, Group, capture, get_tensor
from lianzhi.graph.groups import layer_of
from lianzhi.graph.rules import IN
from lianzhi.prune import evidence
from lianzhi.prune.criteria import needed_by, registry
from lianzhi.prune.granularity import CHANNELS, groups_of
from lianzhi.prune.ignoring import Ignore, Ignored
from lianzhi.prune.importance import GroupView, combine
from lianzhi.prune.planned import Plan

Criterion = str | Callable[..., Any]


@dataclass(frozen=True)
class Scored:
    """A plan that removes nothing yet, and the groups that may lose units, with their scores."""

    plan: Plan
    groups: list[Group]
    scores: list[Tensor]


def score_groups(
    model: nn.Module,
    example_inputs: Any,
    *,
    criterion: Criterion,
    criterion_options: dict[str, Any] | None,
    aggregate: str,
    normalize: str,
    ignore: Ignore,
    granularity: str | Sequence[str] = CHANNELS,
    calibration: Iterable[Any] | None,
    loss: Callable[[Any, Any], Tensor] | None,
) -> Scored:
    """Capture the model, find its groups, and score them."""
    score, needed, name = resolve(criterion, criterion_options or {})
    evidence.check(needed, name, calibration, loss)
    graph = capture(model, example_inputs)
    decided = Plan(graph, groups_of(graph, granularity), {})
    candidates = _not_ignored(graph, decided.groups.groups, ignore)
    known = evidence.collect(needed, graph, decided.groups, calibration, example_inputs, loss)
    groups, scores = [], []
    for group in candidates:
        values = combine(score(GroupView(group, graph.module, known)), aggregate, normalize, group)
        if values is None:
            decided.skipped.append((group.name, f"criterion '{name}' gives it no score"))
        else:
            groups.append(group)
            scores.append(values)
    if not groups:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in decided.unprunable[:5])
        if not reasons and decided.groups.groups:
            reasons = "all are ignored"
        raise GraphError(
            f"{type(model).__name__} has no channels that can be pruned ({reasons or _computed(model)})"
        )
    return Scored(decided, groups, scores)


def _computed(model: nn.Module) -> str:
    """Why no weight is read as it is."""
    found = [name for name, module in model.named_modules() if parametrize.is_parametrized(module)]
    if found:
        return (
            f"the weights of {', '.join(found[:3])} are computed by a parametrization; make them plain first, with "
            f"torch.nn.utils.parametrize.remove_parametrizations"
        )
    return "none of its weights is read as it is; prune a quantized model before it is quantized"


def resolve(
    criterion: Criterion, options: dict[str, Any]
) -> tuple[Callable[[GroupView], Any], str | None, str]:
    """A criterion with its options as a function of a view, the data that it needs, and its name."""
    if not isinstance(criterion, str):
        function, name = criterion, getattr(criterion, "__name__", type(criterion).__name__)
        return (lambda view: function(view, **options)), needed_by(function), name
    entry = registry.get(criterion)
    if entry.config is None and options:
        raise RecipeError(f"criterion '{criterion}' takes no options (got {', '.join(options)})")
    checked = entry.config(**options).model_dump() if entry.config else {}
    return (lambda view: entry.build(view, **checked)), needed_by(entry.build), criterion


def _not_ignored(graph: Graph, groups: list[Group], ignore: Ignore) -> list[Group]:
    """Drop groups that touch an ignored layer's output."""
    ignored = Ignored(graph.source, ignore)

    def hit(group: Group) -> bool:
        own = {slot.tensor for slot in group.members if group.roles[slot] != {IN}}
        return ignored.touches(own | {layer_of(slot) for slot in group.members if group.roles[slot] != {IN}})

    return [group for group in groups if not hit(group)]


def structure(graph: Graph, group: Group) -> tuple[Any, ...]:
    """What makes groups alike, whatever their widths: the ranks, axes and roles of the tensors they touch."""
    return tuple(
        sorted(
            (get_tensor(graph.module, slot.tensor).dim(), slot.axis, *sorted(group.roles[slot]))
            for slot in group.members
        )
    )
