"""`plan`: decide which channels go.

The pieces: `graph.channel_groups` says what goes together, a criterion scores it (`scoring`), `selection` picks
what stays within the limits or to a budget (`latency` to a measured one, `allocation` by measured sensitivities),
`surgery` removes the rest, `proof` shows that it was done right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.graph import Group
from lianzhi.prune import allocation
from lianzhi.prune import latency as timing
from lianzhi.prune.depth import plan_layers
from lianzhi.prune.granularity import CHANNELS, LAYERS, names_of
from lianzhi.prune.ignoring import Ignore
from lianzhi.prune.importance import COST
from lianzhi.prune.planned import Plan
from lianzhi.prune.scoring import Criterion, score_groups, structure
from lianzhi.prune.selection import SCOPES, Limits, Selection, Size, least_kept, select, select_to_budget
from lianzhi.prune.sensitivity import Sensitivity

BY_SENSITIVITY = "sensitivity"
COUNTED = ("macs", "parameters", "bytes")


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
    criterion: Criterion = "l1",
    criterion_options: dict[str, Any] | None = None,
    aggregate: str = "mean",
    normalize: str = "none",
    granularity: str | Sequence[str] = CHANNELS,
    scope: str = "global",
    round_to: int = 1,
    min_channels: int = 1,
    max_layer_ratio: float = 0.9,
    ignore: Ignore = (),
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    sensitivity: Sensitivity | None = None,
    dense: Mapping[str, int] | None = None,
) -> Plan:
    """Decide which channels of a model to remove. Changes nothing.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> decided = plan(net, torch.zeros(1, 3, 8, 8), ratio=0.5)
    >>> small = decided.apply()
    >>> small[0].out_channels, decided.verify() < 1e-5
    (4, True)

    Exactly one budget: `ratio` is the share of channels removed; `macs`, `parameters`, `bytes` and `latency` the
    share that remains. Latency is measured: trial plans are exported, and timed in the runtime `target` at batch
    `batch`, in turns with the original.

    `criterion` is a registered name, or a function from a `GroupView` to one score a channel (a tensor, or a
    list of them, one a layer). Those that read data take it from `calibration`, batches as `example_inputs`, or
    ``(batch, labels)`` with ``loss(outputs, labels)`` where they need gradients.

    `granularity` names what may go: ``channel`` (everything), one or several of ``heads``, ``head_dim``, ``ffn`` and
    ``hidden``, or ``layers``: whole residual blocks, which gives a `DepthPlan` (see `plan_layers`).

    `scope`: one ranking of all channels (``global``), the same ratio everywhere (``layer``), one ranking for the
    layers of each structure (``isomorphic``), or by the measured `sensitivity` of each group (``sensitivity``).
    `normalize` makes the scores of groups comparable (see `importance.normalize`); ``cost`` divides each by what its unit
    costs of the budget, multiply-accumulates, parameters or bytes, so that what is dear and of little use goes first.
    `ignore` takes names, globs and types of layers (``"Linear"`` or ``nn.Linear``); one that matches nothing is an
    error. `dense` says how many units a group had before pruning began, for `max_layer_ratio` of a model that is
    pruned in several rounds.

    Raises `RecipeError` for options that do not fit, `DataError` for calibration data that cannot be used,
    `GraphError` for a model that cannot be captured or has nothing to prune.
    """
    given = {"ratio": ratio, "macs": macs, "parameters": parameters, "bytes": bytes, "latency": latency}
    name, amount = _one_budget(given)
    _check_scope(scope, sensitivity, name)
    if names_of(granularity) == [LAYERS]:
        return plan_layers(  # type: ignore[return-value]
            model,
            example_inputs,
            ratio=amount,
            criterion=criterion,
            seed=_only_seed(criterion_options, name),
            ignore=ignore,
            calibration=calibration,
        )
    limits = Limits(round_to, min_channels, max_layer_ratio)
    if name == "latency":
        timing.check(target, batch)
    scored = score_groups(
        model,
        example_inputs,
        criterion=criterion,
        criterion_options=criterion_options,
        aggregate=aggregate,
        normalize=normalize,
        granularity=granularity,
        ignore=ignore,
        calibration=calibration,
        loss=loss,
    )
    decided, groups, scores = scored.plan, scored.groups, scored.scores
    if normalize == COST:
        scores = _per_cost(decided, groups, scores, name)
    sizes = [
        Size(group.width, (dense or {}).get(group.name), structure(decided.graph, group)) for group in groups
    ]

    def at(share: float, step: int = round_to) -> Selection:
        return select(scores, sizes, scope, share, replace(limits, round_to=step))

    if sensitivity is not None:
        selection = allocation.select_by_sensitivity(scored, sizes, sensitivity, name, amount, limits)
    elif name == "ratio":
        selection = at(amount)
    elif name == "latency":
        with timing.Stopwatch(decided, groups, example_inputs, target, batch) as stopwatch:
            selection, note = timing.select_to_latency(at, stopwatch, amount, limits)
        decided.notes.append(note)
    else:
        selection = select_to_budget(
            at, lambda keeps: decided.share_left(name, groups, keeps), scores, amount, name, limits
        )
    decided.keeps.update({group.name: keep for group, keep in zip(groups, selection.keeps, strict=True)})
    decided.notes += _saved_layers(groups, selection, limits, sizes)
    if all(bool(keep.all()) for keep in selection.keeps):
        decided.notes.append(_nothing_goes(f"{name}={amount:g}", limits, max(map(len, groups))))
    return decided


def _nothing_goes(budget: str, limits: Limits, widest: int) -> str:
    return (
        f"nothing goes: {budget} leaves every group whole, in widths that are multiples of {limits.round_to} and "
        f"with min_channels {limits.min_channels}; its widest group has {widest} units"
    )


def _only_seed(options: dict[str, Any] | None, budget: str) -> int:
    """The seed for the criterion of whole layers, which take a ratio and no other option."""
    if budget != "ratio":
        raise RecipeError(f"granularity 'layers' takes a ratio of the blocks, not {budget}")
    left = dict(options or {})
    seed: int = left.pop("seed", 0)
    if left:
        raise RecipeError(
            f"granularity 'layers': a criterion takes no options but a seed (got {', '.join(left)})"
        )
    return seed


def _check_scope(scope: str, sensitivity: Sensitivity | None, budget: str) -> None:
    known = [*SCOPES, BY_SENSITIVITY]
    if scope not in known:
        raise RecipeError(f"unknown scope '{scope}'{did_you_mean(str(scope), known)}")
    if (scope == BY_SENSITIVITY) != (sensitivity is not None):
        raise RecipeError(
            "scope='sensitivity' and sensitivity=… (made by lz.prune.sensitivity) are given together"
        )
    if not isinstance(sensitivity, (Sensitivity, type(None))):
        raise RecipeError(
            f"sensitivity is a {type(sensitivity).__name__}; give what lz.prune.sensitivity measured"
        )
    if scope == BY_SENSITIVITY and budget == "latency":
        raise RecipeError("scope='sensitivity' meets ratio, macs, parameters or bytes; not latency")


def _per_cost(decided: Plan, groups: list[Group], scores: list[Tensor], budget: str) -> list[Tensor]:
    """Each score over what the unit costs of the whole budget, as the first of its group to go."""
    if budget not in COUNTED:
        raise RecipeError(
            f"normalize='cost' goes with a budget that is counted: {', '.join(COUNTED)}; not {budget}"
        )
    whole = decided.count(budget, {})
    result = []
    for group, score in zip(groups, scores, strict=True):
        if bool((score < 0).any()):
            raise RecipeError(
                f"normalize='cost' divides scores by what a unit costs, and the criterion gives '{group.name}' one below "
                "zero; let it give numbers of at least 0"
            )
        keep = torch.ones(len(group), dtype=torch.bool)
        keep[0] = False
        result.append(score * (whole / max(1, whole - decided.count(budget, {group.name: keep}))))
    return result


def _saved_layers(groups: list[Group], selection: Selection, limits: Limits, sizes: list[Size]) -> list[str]:
    """Which groups were to lose more than the limits allow."""
    notes = []
    for group, keep, wanted, size in zip(groups, selection.keeps, selection.wanted, sizes, strict=True):
        if wanted < least_kept(len(group), limits, group.width, size.dense):
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
    if not isinstance(amount, (int, float)) or not 0 < amount < 1:
        meaning = (
            "the share of channels to remove" if name == "ratio" else f"the share of {name} that is to remain"
        )
        raise RecipeError(f"{name}={amount!r}: {meaning}, above 0 and below 1")
    return name, amount
