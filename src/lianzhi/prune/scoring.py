"""From a model and a criterion to the groups that can be pruned, with one score a unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph import Graph, Group, Groups, capture, get_tensor
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
    candidates = _not_ignored(graph, decided.groups, ignore)
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
        ignored = "all are ignored" if decided.groups.groups and not decided.skipped else ""
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in decided.unprunable[:5])
        raise GraphError(
            f"{type(model).__name__} has no channels that can be pruned "
            f"({ignored or _computed(graph) or reasons or 'none of its weights is read as it is'})"
        )
    return Scored(decided, groups, scores)


def _computed(graph: Graph) -> str:
    """Which weights are computed from others, and how they become plain; nothing where none is."""
    if any("quantize" in str(node.target) for node in graph.nodes):
        return "none of its weights is read as it is; prune a quantized model before it is quantized"
    names = {name or "the model": module for name, module in graph.source.named_modules()}
    found = [name for name, module in names.items() if parametrize.is_parametrized(module)]
    mend = "torch.nn.utils.parametrize.remove_parametrizations"
    for kind, removes in ((WeightNorm, "remove_weight_norm"), (SpectralNorm, "remove_spectral_norm")):
        hooked = [
            name
            for name, module in names.items()
            if any(isinstance(hook, kind) for hook in module._forward_pre_hooks.values())
        ]
        if hooked and not found:
            found, mend = hooked, f"torch.nn.utils.{removes}"
    if not found:
        return ""
    return f"the weights of {', '.join(found[:3])} are computed by a parametrization; make them plain first, with {mend}"


def resolve(
    criterion: Criterion, options: dict[str, Any]
) -> tuple[Callable[[GroupView], Any], str | None, str]:
    """A criterion with its options as a function of a view, the data that it needs, and its name."""
    if not isinstance(criterion, str) and not callable(criterion):
        raise RecipeError(
            f"criterion={criterion!r}: a name ({', '.join(registry.names())}), or a function of a GroupView"
        )
    if not isinstance(options, Mapping):
        raise RecipeError(f"criterion_options={options!r}: a dict of options by name")
    if not isinstance(criterion, str):
        function, name = criterion, getattr(criterion, "__name__", type(criterion).__name__)
        return (lambda view: function(view, **options)), needed_by(function), name
    entry = registry.get(criterion)
    if entry.config is None and options:
        raise RecipeError(f"criterion '{criterion}' takes no options (got {', '.join(options)})")
    checked = entry.config(**options).model_dump() if entry.config else {}
    return (lambda view: entry.build(view, **checked)), needed_by(entry.build), criterion


def _not_ignored(graph: Graph, groups: Groups, ignore: Ignore) -> list[Group]:
    """Drop groups that touch an ignored layer's output, under any name of its tensors."""
    ignored = Ignored(graph.source, ignore)

    def hit(group: Group) -> bool:
        own = {slot.tensor for slot in group.members if group.roles[slot] != {IN}}
        return ignored.touches(alias for name in own for alias in groups.aliases[name])

    return [group for group in groups.groups if not hit(group)]


def structure(graph: Graph, group: Group) -> tuple[Any, ...]:
    """What makes groups alike, whatever their widths: the ranks, axes and roles of the tensors they touch."""
    return tuple(
        sorted(
            (get_tensor(graph.module, slot.tensor).dim(), slot.axis, *sorted(group.roles[slot]))
            for slot in group.members
        )
    )
