"""`Plan`: which channels stay, group by group. It prints, counts, verifies, applies, and is saved as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import ArtifactError, RecipeError, did_you_mean
from lianzhi.graph import Graph, Group, Groups, capture, channel_groups
from lianzhi.graph.groups import layer_of
from lianzhi.graph.rules import INSIDE, OUT
from lianzhi.prune import surgery
from lianzhi.prune.counts import count_left
from lianzhi.prune.depth import DepthPlan
from lianzhi.prune.granularity import LAYERS
from lianzhi.prune.plan_text import FORMAT, parse, texts
from lianzhi.prune.proof import largest_difference


@dataclass
class Plan:
    """A decision on a captured model: `keeps` holds a boolean a channel for each group. Made by `plan`."""

    graph: Graph
    groups: Groups
    keeps: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    result_kind: str = "not applied"
    result_reason: str = ""

    def removed(self) -> Tensor:
        """What goes: a boolean a component of the labels. Raises `RecipeError` for `keeps` that do not fit the groups."""
        known = self.units
        for name, keep in self.keeps.items():
            if name not in known:
                raise RecipeError(f"plan: there is no group '{name}'{did_you_mean(name, known)}")
            fits = isinstance(keep, Tensor) and keep.dtype == torch.bool and keep.shape == (known[name],)
            if not fits or not bool(keep.any()):
                raise RecipeError(
                    f"plan: keeps['{name}'] is a boolean tensor of {known[name]} channels, of which at least one stays; "
                    f"plan.edit({{'{name}': […]}}) takes the indices that stay"
                )
        return self._removed(self.keeps)

    def _removed(self, keeps: dict[str, Tensor]) -> Tensor:
        gone = torch.zeros(self.groups.components.count, dtype=torch.bool)
        for group in self.groups.groups:
            if group.name in keeps:
                gone[group.units[~keeps[group.name]]] = True
        return gone

    def edit(self, changes: Mapping[str, Sequence[int]]) -> None:
        """Set which channels of some groups stay, by their indices; groups that are not named stay as planned.

        >>> from lianzhi.prune import plan
        >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> decided = plan(net, torch.zeros(1, 4), ratio=0.5)
        >>> decided.edit({"0": [0, 1, 5]})
        >>> decided.kept["0"]
        [0, 1, 5]

        A group has the name of its first layer, as `table` prints it. Raises `RecipeError` for a name that is no
        group's and for indices that do not fit; then nothing is changed.
        """
        known = {group.name: group for group in self.groups.groups}
        masks = {}
        if not isinstance(changes, Mapping):
            raise RecipeError(
                f"plan: edits are a dict of group → channels that stay, not a {type(changes).__name__}"
            )
        for name, kept in changes.items():
            if name not in known:
                frozen = dict(self.groups.frozen).get(name)
                why = f"; it cannot be pruned: {frozen}" if frozen else did_you_mean(str(name), known)
                raise RecipeError(f"plan: there is no group '{name}'{why}")
            indices = kept.tolist() if isinstance(kept, Tensor) else kept
            listed = list(indices) if isinstance(indices, Iterable) else None
            mask = _mask(listed, len(known[name]))
            if mask is None:
                raise RecipeError(
                    f"plan: group '{name}' keeps at least one of its channels 0 to {len(known[name]) - 1}, "
                    f"each named once by its index (got {str(kept)[:80]})"
                )
            masks[name] = mask
        self.keeps.update(masks)

    @property
    def kept(self) -> dict[str, list[int]]:
        """The indices that stay of each group that the plan decides on."""
        return {name: torch.nonzero(keep).reshape(-1).tolist() for name, keep in self.keeps.items()}

    def apply(self, *, in_place: bool = False, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
        """Remove the channels; return the pruned model (a copy, unless `in_place`).

        An `optimizer` is pointed at the new parameters, its state sliced. `result_kind` says afterwards
        whether the ``plain`` module could be kept, or the captured ``graph`` module is the result (then the
        model itself is left as it was, `in_place` or not), and `result_reason` why.
        """
        operated = surgery.operate(
            self.graph, self.groups, self.removed(), in_place=in_place, optimizer=optimizer
        )
        self.result_kind, self.result_reason = operated.kind, operated.reason
        return operated.module

    def verify(self, *, seed: int = 0) -> float:
        """Largest |pruned − masked original| on noise, relative to the output's size; about 1e-6 if exact."""
        return largest_difference(self.graph, self.groups, self.removed(), seed=seed)

    def count(self, quantity: str, keeps: dict[str, Tensor] | None = None) -> int:
        """`macs` (one sample), `parameters` or `bytes` (of all tensors) that are left."""
        removed = self.removed() if keeps is None else self._removed(keeps)
        return count_left(quantity, self.graph, self.groups, removed)

    def share_left(self, quantity: str, groups: Sequence[Group], keeps: Sequence[Tensor]) -> float:
        """The share of a quantity that is left if of these groups these units stay."""
        trial = {group.name: keep for group, keep in zip(groups, keeps, strict=True)}
        return self.count(quantity, trial) / max(1, self.count(quantity, {}))

    @property
    def units(self) -> dict[str, int]:
        """How many units each group has, before anything goes."""
        return {group.name: len(group) for group in self.groups.groups}

    @property
    def share_kept(self) -> float:
        """Units that stay, of all that the plan decides on."""
        total = sum(len(keep) for keep in self.keeps.values())
        return sum(int(keep.sum()) for keep in self.keeps.values()) / total if total else 1.0

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Output channels of each layer with weights, before and after: ``{"name", "before", "after"}``."""
        keep = self.groups.keep(self.removed())
        rows = []
        for slot, labels in self.groups.flow.labels.slots.items():
            if OUT in self.groups.flow.roles.get(slot, ()):
                kept = keep.get(slot.tensor, {}).get(slot.axis, labels)
                rows.append({"name": layer_of(slot), "before": len(labels), "after": len(kept)})
        return rows

    @property
    def unprunable(self) -> list[tuple[str, str]]:
        """(layer, reason) for what cannot be pruned, or was left whole because the criterion is silent on it."""
        return [*self.groups.frozen, *self.skipped]

    def table(self) -> str:
        """The plan as text."""
        head = f"{'group':<36}{'layers':>7}{'channels':>10}{'kept':>7}{'removed':>9}"
        lines = [head, "-" * len(head)]
        for group in self.groups.groups:
            keep = self.keeps.get(group.name)
            kept = len(group) if keep is None else int(keep.sum())
            share = 1 - kept / len(group)
            lines.append(f"{group.name:<36}{len(group.layers()):>7}{len(group):>10}{kept:>7}{share:>9.1%}")
        for what, quantity in (("parameters", "parameters"), ("MACs", "macs")):
            before, after = self.count(quantity, {}), self.count(quantity)
            lines.append(f"{what} {before:,} -> {after:,} ({after / max(before, 1):.1%} remain)")
        lines += self.notes
        lines += [f"not pruned: {layer} ({reason})" for layer, reason in self.unprunable]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """The plan as JSON: for each group, the channels kept. Edit it, and read it with `from_json`."""
        groups = {
            group.name: {
                "channels": len(group),
                "keep": torch.nonzero(self.keeps[group.name]).reshape(-1).tolist(),
            }
            for group in self.groups.groups
            if group.name in self.keeps
        }
        more = {
            "granularity": INSIDE if self.groups.flow.inner else "",
            "notes": self.notes,
            "skipped": [list(pair) for pair in self.skipped],
        }
        return json.dumps({"format": FORMAT, "groups": groups, **{k: v for k, v in more.items() if v}})

    @staticmethod
    def from_json(text: str, model: nn.Module, example_inputs: Any) -> Plan:
        """Read a plan for a model of the structure that it was made for.

        >>> from lianzhi.prune import plan
        >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> text = '{"format": 1, "groups": {"0": {"channels": 6, "keep": [0, 5]}}}'
        >>> Plan.from_json(text, net, torch.zeros(1, 4)).apply()[0].out_features
        2

        A plan of whole layers gives a `DepthPlan`. Raises `ArtifactError` for a plan that is damaged or of another model.
        """
        data = parse(text)
        entries, granularity = data.get("groups"), data.get("granularity", INSIDE)
        if granularity == LAYERS:
            return DepthPlan.from_json(text, model, example_inputs)  # type: ignore[return-value]
        if granularity != INSIDE or not isinstance(entries, dict):
            raise ArtifactError("not a pruning plan: it has no mapping of 'groups', or another 'granularity'")
        graph = capture(model, example_inputs)
        groups = channel_groups(graph, inner="granularity" in data)
        known = {group.name: group for group in groups.groups}
        keeps = {}
        for name, entry in entries.items():
            if name not in known:
                raise ArtifactError(
                    f"pruning plan: the model has no group '{name}'{did_you_mean(name, known)}"
                )
            keeps[name] = _keep_mask(name, entry, len(known[name]))
        return Plan(graph, groups, keeps, texts(data, "notes"), _skipped(data))


def _skipped(data: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        return [(str(name), str(reason)) for name, reason in data.get("skipped", [])]
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"not a pruning plan (skipped: {error})") from None


def _keep_mask(name: str, entry: Any, size: int) -> Tensor:
    channels = entry.get("channels", size) if isinstance(entry, dict) else size
    if channels != size:
        raise ArtifactError(
            f"pruning plan: group '{name}' has {channels} channels in the plan, {size} in the model"
        )
    kept = entry.get("keep") if isinstance(entry, dict) else entry
    mask = _mask(kept, size)
    if mask is None:
        raise ArtifactError(
            f"pruning plan: group '{name}' must keep at least one of its channels 0 to {size - 1}, each named once"
        )
    return mask


def _mask(kept: Any, size: int) -> Tensor | None:
    """Indices as a boolean a channel; None if they are not indices of at least one, each once."""
    if not isinstance(kept, list) or not kept or len(kept) > size:
        return None
    if not all(type(index) is int and 0 <= index < size for index in kept) or len(set(kept)) < len(kept):
        return None
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.tensor(kept)] = True
    return mask
