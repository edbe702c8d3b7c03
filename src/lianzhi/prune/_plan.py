"""`plan`: decide which channels go. A plan prints, can be verified, edited, saved, and applied.

The pieces: `graph.channel_groups` says what goes together, a criterion scores it, `selection` picks what
goes within the limits or to a budget, `surgery` removes it, `proof` shows that it was done right.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import ArtifactError, GraphError, RecipeError, did_you_mean
from lianzhi.graph import Graph, TracedModule, capture, node_macs
from lianzhi.graph.groups import Group, Groups, channel_groups
from lianzhi.graph.labels import Slot
from lianzhi.graph.rules import aten
from lianzhi.prune import rewrite, surgery
from lianzhi.prune.criteria import registry
from lianzhi.prune.importance import GroupView, aggregate, normalize
from lianzhi.prune.proof import largest_difference
from lianzhi.prune.selection import SCOPES, Limits, select_to_budget

FORMAT = 1
BUDGETS = ("ratio", "macs", "parameters", "bytes", "latency")


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

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> decided = plan(net, torch.zeros(1, 3, 8, 8), ratio=0.5)
    >>> small = decided.apply()
    >>> small[0].out_channels, decided.verify() < 1e-5
    (4, True)

    Exactly one budget: `ratio` is the share of channels removed; `macs`, `parameters` and `bytes` the share
    that remains. `criterion` is a registered name or a function from a `GroupView` to scores a layer.
    `ignore` takes layer names and globs; one that matches nothing is an error. Raises `RecipeError` for
    options that do not fit, `GraphError` for a model that cannot be captured.
    """
    given = {"ratio": ratio, "macs": macs, "parameters": parameters, "bytes": bytes, "latency": latency}
    name, amount = _one_budget(given)
    _refuse_unbuilt(name, granularity, scope, calibration, loss)
    limits = Limits(round_to, min_channels, max_layer_ratio)
    score = _criterion(criterion, criterion_options or {})
    graph = capture(model, example_inputs)
    groups = channel_groups(graph)
    chosen = _not_ignored(graph, groups.groups, ignore)
    if not chosen:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in groups.frozen[:5])
        raise GraphError(f"{type(model).__name__} has no channels that can be pruned ({reasons or 'all ignored'})")
    norms = _norm_scales(graph, groups)
    scores = []
    for group in chosen:
        values = score(GroupView(group, graph.module, norms=norms))
        values = values if isinstance(values, (list, tuple)) else [values]
        scores.append(_combine(values, aggregate, normalize, group))
    decided = Plan(graph, groups, {})
    if name == "ratio":
        keeps = SCOPES[scope](scores, amount, limits)
    else:
        quantity = {"macs": decided.macs_after, "parameters": decided.parameters_after, "bytes": decided.bytes_after}[name]
        whole = quantity(decided.removed({}))

        def remaining(trial: list[Tensor]) -> float:
            return quantity(decided.removed(dict(zip(map(key_of, chosen), trial, strict=True)))) / whole

        keeps = select_to_budget(scores, scope, limits, remaining, amount, name)
    return Plan(graph, groups, dict(zip(map(key_of, chosen), keeps, strict=True)))


def key_of(group: Group) -> str:
    """A group's name in a plan: its first layer and its size (families of one layer differ in it)."""
    return f"{group.name}/{int(group.units[0])}"


@dataclass
class Plan:
    """Which channels stay, group by group. See `plan`."""

    graph: Graph
    groups: Groups
    keeps: dict[str, Tensor]
    result_kind: str = "not applied"
    result_reason: str = ""

    def removed(self, keeps: dict[str, Tensor] | None = None) -> Tensor:
        """A boolean a component: what goes."""
        gone = torch.zeros(int(self.groups.component.max()) + 1, dtype=torch.bool)
        for group in self.groups.groups:
            keep = (self.keeps if keeps is None else keeps).get(key_of(group))
            if keep is not None:
                gone[group.units[~keep]] = True
        return gone

    def apply(self, *, in_place: bool = False, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
        """Remove the channels; return the pruned model (a copy, unless `in_place`).

        An `optimizer` is pointed at the new parameters, its state sliced. `result_kind` says afterwards
        whether the ``plain`` module could be kept, or the captured ``graph`` module is the result.
        """
        operated = surgery.operate(self.graph, self.groups, self.removed(), in_place=in_place, optimizer=optimizer)
        self.result_kind, self.result_reason = operated.kind, operated.reason
        return operated.module

    def verify(self, *, seed: int = 0) -> float:
        """Largest |pruned − masked original| on noise, relative to the output's size; about 1e-6 if exact."""
        removed = self.removed()
        keep = surgery.by_tensor(self.groups.keep(removed))
        traced = TracedModule(self.graph.module, rewrite.rewritten(self.graph, self.groups, removed))
        return largest_difference(self.graph, self.groups, keep, traced, seed=seed)

    def parameters_after(self, removed: Tensor) -> int:
        """Parameters that are left."""
        return self._numel(removed, lambda tensor: 1, parameters=True)

    def bytes_after(self, removed: Tensor) -> int:
        """Bytes of all tensors that are left."""
        return self._numel(removed, lambda tensor: tensor.element_size(), parameters=False)

    def _numel(self, removed: Tensor, weigh: Callable[[Tensor], int], *, parameters: bool) -> int:
        keep = surgery.by_tensor(self.groups.keep(removed))
        module = self.graph.module
        named = list(module.named_parameters()) + ([] if parameters else list(module.named_buffers()))
        total = 0
        for name, tensor in named:
            count = tensor.numel()
            for axis, indices in keep.get(name, {}).items():
                count = count // tensor.shape[axis] * len(indices)
            total += count * weigh(tensor)
        return total

    def macs_after(self, removed: Tensor) -> int:
        """Multiply-accumulates of the traced batch that are left."""
        keep = surgery.by_tensor(self.groups.keep(removed))
        total = 0
        for node in self.graph.nodes:
            count = node_macs(node)
            if count:
                weight = next((name for name in map(self.groups.flow.tensor, node.args) if name), None)
                for axis, indices in keep.get(weight or "", {}).items():
                    count = count // self.groups.labels.sizes[Slot(weight or "", axis)] * len(indices)
            total += count
        return total

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Output channels of each convolution and linear layer, before and after."""
        keep = surgery.by_tensor(self.groups.keep(self.removed()))
        rows = []
        for name, shape in self.groups.flow.real.items():
            layer, _, leaf = name.rpartition(".")
            axis = 1 if Slot(name, 0) in self.groups.labels.slots and self._is_transposed(name) else 0
            if leaf == "weight" and len(shape) >= 2 and Slot(name, axis) in self.groups.labels.slots:
                after = keep.get(name, {}).get(axis)
                rows.append({"name": layer, "before": shape[axis], "after": shape[axis] if after is None else len(after)})
        return rows

    def _is_transposed(self, name: str) -> bool:
        return any(
            "conv_transpose" in str(node.target) and self.groups.flow.tensor(node.args[1]) == name
            for node in self.graph.nodes
            if node.op == "call_function"
        )

    @property
    def unprunable(self) -> list[tuple[str, str]]:
        """(layer, reason) for what cannot be pruned."""
        return list(self.groups.frozen)

    def table(self) -> str:
        """The plan as text."""
        removed, nothing = self.removed(), self.removed({})
        lines = [f"{'group':<40}{'layers':>8}{'channels':>10}{'kept':>8}{'removed':>9}"]
        for group in self.groups.groups:
            keep = self.keeps.get(key_of(group))
            kept = len(group) if keep is None else int(keep.sum())
            layers = sum(1 for slot in group.members if slot.axis == 0 and slot.tensor.endswith("weight"))
            lines.append(f"{key_of(group):<40}{layers:>8}{len(group):>10}{kept:>8}{1 - kept / len(group):>9.1%}")
        for what, measure in (("parameters", self.parameters_after), ("MACs", self.macs_after)):
            before, after = measure(nothing), measure(removed)
            lines.append(f"{what} {before:,} -> {after:,} ({after / max(before, 1):.1%} remain)")
        lines += [f"not prunable: {layer} ({reason})" for layer, reason in self.unprunable]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """The plan as JSON: for each group, the channels kept. Edit it, and read it with `from_json`."""
        groups = {
            key_of(group): {
                "channels": len(group),
                "keep": torch.nonzero(self.keeps[key_of(group)]).reshape(-1).tolist(),
            }
            for group in self.groups.groups
            if key_of(group) in self.keeps
        }
        return json.dumps({"format": FORMAT, "groups": groups}, indent=1)

    @staticmethod
    def from_json(text: str, model: nn.Module, example_inputs: Any) -> Plan:
        """Read a plan for a model of the structure that it was made for."""
        try:
            data = json.loads(text)
            groups_data = dict(data["groups"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"not a pruning plan: {error}") from None
        if data.get("format") != FORMAT:
            raise ArtifactError(f"pruning plan of format {data.get('format')!r}; this version reads format {FORMAT}")
        graph = capture(model, example_inputs)
        groups = channel_groups(graph)
        known = {key_of(group): group for group in groups.groups}
        keeps = {}
        for key, entry in groups_data.items():
            if key not in known:
                raise ArtifactError(f"pruning plan: the model has no group '{key}'{did_you_mean(key, known)}")
            keeps[key] = _keep_mask(key, entry, len(known[key]))
        return Plan(graph, groups, keeps)


def _keep_mask(key: str, entry: Any, size: int) -> Tensor:
    kept = entry.get("keep") if isinstance(entry, dict) else entry
    valid = isinstance(kept, list) and all(type(index) is int and 0 <= index < size for index in kept)
    if not valid or not kept:
        raise ArtifactError(f"pruning plan: group '{key}' must keep at least one of its channels 0 to {size - 1}")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.tensor(kept)] = True
    return mask


def _one_budget(given: dict[str, float | None]) -> tuple[str, float]:
    named = [(name, amount) for name, amount in given.items() if amount is not None]
    if len(named) != 1:
        found = ", ".join(name for name, _ in named) or "none"
        raise RecipeError(f"give exactly one of {', '.join(given)} (got {found})")
    name, amount = named[0]
    if not 0 <= amount <= 1 or (name == "ratio" and amount == 1):
        raise RecipeError(f"{name}={amount}: a share from 0 to 1" + (", below 1" if name == "ratio" else ""))
    return name, amount


def _refuse_unbuilt(name: str, granularity: str, scope: str, calibration: Any, loss: Any) -> None:
    """Options of the signature that this version does not know are refused, never ignored."""
    if granularity != "channel":
        raise RecipeError(f"granularity '{granularity}': this version prunes channels only (granularity 'channel')")
    if name == "latency":
        raise RecipeError("latency budgets are not in this version; use macs=…, and measure with lz.measure.latency")
    if scope not in SCOPES:
        raise RecipeError(f"unknown scope '{scope}'{did_you_mean(scope, SCOPES)}")
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


def _combine(values: Sequence[Tensor], how: str, scale: str, group: Group) -> Tensor:
    for value in values:
        if value.shape != (len(group),):
            raise GraphError(
                f"group '{group.name}': the criterion gave scores of shape {tuple(value.shape)}, "
                f"one for each of {len(group)} channels is needed"
            )
        if not bool(torch.isfinite(value).all()):
            raise GraphError(f"group '{group.name}': the criterion gave a score that is not finite")
    return normalize(aggregate([value.double() for value in values], how), scale)


def _not_ignored(graph: Graph, groups: list[Group], ignore: Sequence[str]) -> list[Group]:
    """Drop groups that touch an ignored layer; a pattern that matches no layer is an error."""
    modules = [name for name, _ in graph.source.named_modules() if name]
    for pattern in ignore:
        if not any(fnmatch.fnmatch(name, pattern) for name in modules):
            raise RecipeError(f"ignore: '{pattern}' matches no layer{did_you_mean(pattern, modules)}")

    def hit(group: Group) -> bool:
        layers = {slot.tensor.rpartition(".")[0] for slot in group.members if slot.axis == 0}
        return any(fnmatch.fnmatch(layer, pattern) for layer in layers for pattern in ignore)

    return [group for group in groups if not hit(group)]


def _norm_scales(graph: Graph, groups: Groups) -> frozenset[str]:
    """The tensors that are the scale γ of a BatchNorm."""
    names = [
        groups.flow.tensor(node.args[1])
        for node in graph.nodes
        if node.op == "call_function" and node.target is aten.batch_norm.default
    ]
    return frozenset(name for name in names if name)
