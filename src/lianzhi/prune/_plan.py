"""`plan`: decide which channels go.

The pieces: `graph.channel_groups` says what goes together, a criterion scores it, `selection` picks what
stays within the limits or to a budget, `surgery` removes the rest, `proof` shows that it was done right.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from lianzhi.errors import GraphError, RecipeError, did_you_mean
from lianzhi.graph import Graph, Group, capture, channel_groups
from lianzhi.graph.groups import layer_of
from lianzhi.graph.rules import IN
from lianzhi.prune.criteria import registry
from lianzhi.prune.importance import GroupView, combine
from lianzhi.prune.planned import Plan
from lianzhi.prune.selection import SCOPES, Limits, Selection, least_kept, select, select_to_budget


def plan(
    model: nn.Module,
    example_inputs: Any,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    parameters: float | None = None,
    bytes: float | None = None,
    latency: float | None = None,
    target: str = "onnxruntime",
    batch: int = 1,
    criterion: str | Callable[..., Any] = "l1",
    criterion_options: dict[str, Any] | None = None,
    aggregate: str = "mean",
    normalize: str = "none",
    granularity: str = "channel",
    scope: str = "global",
    round_to: int = 1,
    min_channels: int = 1,
    max_layer_ratio: float = 0.9,
    ignore: Sequence[str] = (),
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Plan:
    """Decide which channels of a model to remove. Changes nothing.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> decided = plan(net, torch.zeros(1, 3, 8, 8), ratio=0.5)
    >>> small = decided.apply()
    >>> small[0].out_channels, decided.verify() < 1e-5
    (4, True)

    Exactly one budget: `ratio` is the share of channels removed; `macs`, `parameters` and `bytes` the share
    that remains. `criterion` is a registered name, or a function from a `GroupView` to one score a channel
    (a tensor, or a list of them, one a layer). `ignore` takes names and globs of layers; one that matches
    nothing is an error. `target` and `batch` belong to `latency`.

    Raises `RecipeError` for options that do not fit, `GraphError` for a model that cannot be captured or has
    nothing to prune.
    """
    given = {"ratio": ratio, "macs": macs, "parameters": parameters, "bytes": bytes, "latency": latency}
    name, amount = _one_budget(given)
    _refuse_unbuilt(name, granularity, calibration, loss)
    if scope not in SCOPES:
        raise RecipeError(f"unknown scope '{scope}'{did_you_mean(scope, SCOPES)}")
    limits = Limits(round_to, min_channels, max_layer_ratio)
    score = _criterion(criterion, criterion_options or {})
    graph = capture(model, example_inputs)
    decided = Plan(graph, channel_groups(graph), {})
    scored, silent = _scores(
        decided, ignore, lambda view: combine(score(view), aggregate, normalize, view.group)
    )
    decided.skipped += [(group.name, f"criterion '{criterion}' gives it no score") for group in silent]
    if not scored:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in decided.unprunable[:5])
        raise GraphError(
            f"{type(model).__name__} has no channels that can be pruned ({reasons or 'all are ignored'})"
        )
    groups, scores = [group for group, _ in scored], [values for _, values in scored]
    widths = [group.width for group in groups]

    def at(share: float) -> Selection:
        return select(scores, widths, scope, share, limits)

    selection = at(amount)
    if name != "ratio":
        selection = select_to_budget(
            at, lambda keeps: decided.share_left(name, groups, keeps), amount, name, limits
        )
    decided.keeps.update({group.name: keep for group, keep in zip(groups, selection.keeps, strict=True)})
    decided.notes += _saved_layers(groups, selection, limits)
    return decided


def _scores(
    decided: Plan, ignore: Sequence[str], score: Callable[[GroupView], Tensor | None]
) -> tuple[list[tuple[Group, Tensor]], list[Group]]:
    """Groups with their scores, and those that the criterion says nothing of."""
    scored, silent = [], []
    for group in _not_ignored(decided.graph, decided.groups.groups, ignore):
        values = score(GroupView(group, decided.graph.module))
        if values is None:
            silent.append(group)
        else:
            scored.append((group, values))
    return scored, silent


def _saved_layers(groups: list[Group], selection: Selection, limits: Limits) -> list[str]:
    """Which groups were to lose more than the limits allow."""
    notes = []
    for group, keep, wanted in zip(groups, selection.keeps, selection.wanted, strict=True):
        if wanted < least_kept(len(group), limits, group.width):
            left = "none" if wanted == 0 else str(wanted)
            notes.append(
                f"{group.name}: the ranking leaves {left} of {len(group)} channels; its best {int(keep.sum())} are kept"
            )
    return notes


def _one_budget(given: dict[str, float | None]) -> tuple[str, float]:
    named = [(name, amount) for name, amount in given.items() if amount is not None]
    if len(named) != 1:
        found = ", ".join(name for name, _ in named) or "none"
        raise RecipeError(f"give exactly one of {', '.join(given)} (got {found})")
    name, amount = named[0]
    if not 0 < amount < 1:
        meaning = (
            "the share of channels to remove" if name == "ratio" else f"the share of {name} that is to remain"
        )
        raise RecipeError(f"{name}={amount}: {meaning}, above 0 and below 1")
    return name, amount


def _refuse_unbuilt(name: str, granularity: str, calibration: Any, loss: Any) -> None:
    """Options of the signature that this version does not know are refused, never ignored."""
    if granularity != "channel":
        raise RecipeError(f"granularity '{granularity}' is not in this version, which prunes by 'channel'")
    if name == "latency":
        raise RecipeError(
            "a latency budget is not in this version; use macs=…, and measure with lz.measure.latency"
        )
    if calibration is not None or loss is not None:
        raise RecipeError("no criterion of this version reads data: leave out calibration and loss")


def _criterion(criterion: str | Callable[..., Any], options: dict[str, Any]) -> Callable[[GroupView], Any]:
    if not isinstance(criterion, str):
        return lambda view: criterion(view, **options)
    entry = registry.get(criterion)
    if entry.config is None and options:
        raise RecipeError(f"criterion '{criterion}' takes no options (got {', '.join(options)})")
    checked = entry.config(**options).model_dump() if entry.config else {}
    return lambda view: entry.build(view, **checked)


def _not_ignored(graph: Graph, groups: list[Group], ignore: Sequence[str]) -> list[Group]:
    """Drop groups that touch an ignored layer's output; a pattern that matches no layer is an error."""
    if isinstance(ignore, str):
        ignore = (ignore,)
    modules = [name for name, _ in graph.source.named_modules() if name]
    names = modules + [name for name, _ in graph.source.named_parameters()]
    for pattern in ignore:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise RecipeError(f"ignore: '{pattern}' matches no layer{did_you_mean(pattern, modules)}")

    def hit(group: Group) -> bool:
        own = {slot.tensor for slot in group.members if group.roles[slot] != {IN}}
        own |= {layer_of(slot) for slot in group.members if group.roles[slot] != {IN}}
        paths = {".".join(name.split(".")[:end]) for name in own for end in range(1, name.count(".") + 2)}
        return any(fnmatch.fnmatchcase(path, pattern) for path in paths for pattern in ignore)

    return [group for group in groups if not hit(group)]
