"""Sensitivity: the metric against the share of channels removed, group by group, by masking.

A group's weakest units are silenced at their consumers for each ratio, the model is evaluated, and the weights
are put back: no surgery, and no copy of the model. Evaluate on a validation cut: what is measured here decides.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.graph import Graph, Group, get_tensor
from lianzhi.graph.rules import IN
from lianzhi.measure.metric import one_number
from lianzhi.prune.curves import draw
from lianzhi.prune.granularity import CHANNELS
from lianzhi.prune.ignoring import Ignore
from lianzhi.prune.scoring import Criterion, score_groups

FORMAT = 1
RATIOS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Sensitivity:
    """The metric of the whole model, and of each group the metric at each ratio. More is better."""

    base: float
    ratios: tuple[float, ...]
    values: dict[str, tuple[float, ...]]
    units: dict[str, int]
    criterion: str = "l1"

    def drop(self, group: str, ratio: float) -> float:
        """The predicted loss of the metric: linear between what was measured, and never falling with the ratio.

        >>> found = Sensitivity(0.9, (0.5, 0.75), {"a": (0.8, 0.85)}, {"a": 8})
        >>> round(found.drop("a", 0.25), 3), round(found.drop("a", 0.75), 3)
        (0.05, 0.1)
        """
        points, highest = [(0.0, 0.0)], 0.0
        for at, value in zip(self.ratios, self.values[group], strict=True):
            highest = max(highest, self.base - value)
            points.append((at, highest))
        for (left, low), (right, high) in itertools.pairwise(points):
            if ratio <= right:
                return low + (high - low) * (ratio - left) / (right - left)
        return math.inf

    def table(self) -> str:
        """The curves as text, the most sensitive group first."""
        head = f"{'group':<36}{'channels':>9}" + "".join(f"{f'-{ratio:.0%}':>9}" for ratio in self.ratios)
        lines = [f"whole model: {self.base:.4f}, by {self.criterion}", head, "-" * len(head)]
        for name in sorted(self.values, key=lambda group: self.values[group]):
            lines.append(
                f"{name:<36}{self.units[name]:>9}" + "".join(f"{value:>9.4f}" for value in self.values[name])
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the curves as one SVG file that needs nothing else."""
        files.write_text(path, draw(self.base, self.ratios, self.values))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"format": FORMAT, **asdict(self)}

    def to_json(self) -> str:
        """As JSON, for `from_json`."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Sensitivity:
        """Read what `to_json` wrote. Raises `ArtifactError` for anything else."""
        try:
            data = json.loads(text)
            version = data["format"]
            ratios = tuple(float(ratio) for ratio in data["ratios"])
            values = {str(name): tuple(float(value) for value in row) for name, row in data["values"].items()}
            units = {str(name): int(count) for name, count in data["units"].items()}
            found = Sensitivity(float(data["base"]), ratios, values, units, str(data["criterion"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"not a sensitivity ({type(error).__name__}: {error})") from None
        numbers = [found.base, *ratios, *(value for row in values.values() for value in row)]
        fits = all(len(row) == len(ratios) for row in values.values()) and values.keys() == units.keys()
        rising = all(left < right for left, right in zip((0.0, *ratios), (*ratios, 1.0), strict=True))
        if version != FORMAT or not fits or not rising or not all(map(math.isfinite, numbers)):
            raise ArtifactError(
                f"a sensitivity of format {version!r} that is damaged, or not of format {FORMAT}"
            )
        return found


def sensitivity(
    model: nn.Module,
    example_inputs: Any,
    evaluate: Callable[[nn.Module], float],
    *,
    ratios: Sequence[float] = RATIOS,
    criterion: Criterion = "l1",
    criterion_options: dict[str, Any] | None = None,
    aggregate: str = "mean",
    normalize: str = "none",
    granularity: str | Sequence[str] = CHANNELS,
    ignore: Ignore = (),
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> Sensitivity:
    """Measure how the metric falls when one group at a time loses its weakest channels.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> found = sensitivity(net, torch.zeros(1, 4), lambda model: -float(model(torch.ones(1, 4)).detach().abs()))
    >>> list(found.values), found.ratios
    (['0'], (0.25, 0.5, 0.75))

    ``evaluate(model)`` gives one number, more is better, on a *validation* part: never on the data that is
    reported. It is called once, and once a group and ratio, on `model` itself, whose weights are back in place
    afterwards, whatever happens. `report(group, done, total)` is called before each group.

    `granularity` and `ignore` are those of the `plan` that is to read it.

    Where a norm or a softmax runs over the channels of a group, masking differs a little from removal.
    """
    rising = all(left < right for left, right in zip((0.0, *ratios), (*ratios, 1.0), strict=True))
    if not ratios or not rising:
        raise RecipeError(f"ratios={tuple(ratios)}: shares between 0 and 1, the smallest first")
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
    base = one_number(evaluate(model), "the whole model")
    values: dict[str, tuple[float, ...]] = {}
    for index, (group, scores) in enumerate(zip(scored.groups, scored.scores, strict=True)):
        if report is not None:
            report(group.name, index, len(scored.groups))
        order, row = torch.argsort(scores, stable=True), []
        for ratio in ratios:
            gone = min(round(len(group) * ratio), len(group) - 1)  # a plan leaves at least one, too
            with silenced(scored.plan.graph, group, order[:gone]):
                row.append(one_number(evaluate(model), f"group '{group.name}' without {ratio:.0%}"))
        values[group.name] = tuple(row)
    name = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "a function")
    units = {group.name: len(group) for group in scored.groups}
    return Sensitivity(base, tuple(float(ratio) for ratio in ratios), values, units, name)


@contextlib.contextmanager
def silenced(graph: Graph, group: Group, units: Tensor) -> Iterator[None]:
    """Zero what reads these units of a group (what gives them, where nothing with weights reads them)."""
    slots = group.slots(IN) or list(group.members)
    before = {slot.tensor: get_tensor(graph.module, slot.tensor) for slot in slots}
    saved = {name: tensor.detach().clone() for name, tensor in before.items()}
    try:
        with torch.no_grad():
            for slot in slots:
                tensor = before[slot.tensor]
                tensor.index_fill_(slot.axis, group.members[slot][units].reshape(-1).to(tensor.device), 0.0)
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                tensor.copy_(saved[name])
