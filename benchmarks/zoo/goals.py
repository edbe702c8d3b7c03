"""Goals of composed recipes: for a model the smallest file, the fastest, and what stays within half a point.

A goal says how many points may be lost on the reported split and what counts then. Of each model a recipe is made for it, by
what the part cut off the training data says; nothing is chosen by the reported split.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lianzhi.report import Report, compare
from zoo.text import Text

Run = Mapping[str, Any]
EXACT = 1e-9  # of a share: differences of floats that are not to decide


@dataclass(frozen=True)
class Family:
    """A model with its data: the recipe of the dense one, and those that compress it, one of them made for each goal."""

    name: str
    title: str
    dense: str
    other: tuple[str, ...]
    made_for: Mapping[str, str]

    @property
    def recipes(self) -> tuple[str, ...]:
        """All that compress it."""
        return (*self.other, *(name for name in self.made_for.values() if name not in self.other))


@dataclass(frozen=True)
class Standing:
    """A recipe's runs as means. `time` is the share of the original's fastest float, taken in the same call."""

    recipe: str
    runs: int
    value: float
    lost: float
    bytes: float
    smaller: float
    latency_ms: float
    time: float


@dataclass(frozen=True)
class Goal:
    """`most` is the share of accuracy that may be lost; the least `cost` is best."""

    name: str
    title: Text
    most: float
    cost: Callable[[Standing], float]
    rule: Text

    def met(self, standing: Standing) -> bool:
        """Whether the rule holds on the reported split."""
        return standing.lost <= self.most + EXACT

    def made(self, family: Family, found: Iterable[Standing]) -> Standing | None:
        """The recipe made for the goal; None where it has no run."""
        return next((one for one in found if one.recipe == family.made_for[self.name]), None)

    def better(self, family: Family, found: Sequence[Standing]) -> Standing | None:
        """Another recipe for which the rule holds and that costs less; all that hold do, where the one made for it misses."""
        made = self.made(family, found)
        if made is None:
            return None
        other = [one for one in found if one is not made and self.met(one)]
        best = min(other, key=self.cost, default=None)
        return best if best and (not self.met(made) or self.cost(best) < self.cost(made)) else None


FAMILIES = (
    Family(
        "fashion",
        "ResNet-13, Fashion-MNIST",
        "fashion-dense",
        ("demo",),
        {"smallest": "fashion-smallest", "fastest": "fashion-fastest", "half-point": "fashion-half-point"},
    ),
    Family(
        "resnet56",
        "ResNet-56, CIFAR-10",
        "resnet56-dense",
        ("cifar10-resnet56",),
        {"smallest": "resnet56-smallest", "fastest": "resnet56-fastest", "half-point": "resnet56-half-point"},
    ),
    Family(
        "sst2",
        "BERT, 6 layers, SST-2",
        "sst2-teacher",
        ("sst2-prune", "sst2-chain"),
        {"smallest": "sst2-smallest", "fastest": "sst2-chain", "half-point": "sst2-half-point"},
    ),
)
GOALS = (
    Goal(
        "smallest",
        Text("smallest", "最小"),
        0.02,
        lambda one: one.bytes,
        Text("fewest bytes, at most 2 points below the dense model", "字节最少，比未压缩模型至多低 2 个点"),
    ),
    Goal(
        "fastest",
        Text("fastest", "最快"),
        0.02,
        lambda one: one.time,
        Text("least time at batch 1, at most 2 points below", "批 1 时间最短，至多低 2 个点"),
    ),
    Goal(
        "half-point",
        Text("within half a point", "半个点以内"),
        0.005,
        lambda one: one.time / one.smaller,
        Text(
            "at most 0.5 points below; the greatest product of how many times smaller and faster",
            "至多低 0.5 个点；缩小倍数与加速倍数之积最大",
        ),
    ),
)


def dense_row(rows: Sequence[Run]) -> Run:
    """The dense model in a run's rows: after the steps that only train, if the recipe begins with any."""
    index = next((index for index, row in enumerate(rows[1:]) if row["step"] != "train"), 0)
    return rows[index]


def speeds(run: Run) -> dict[str, float | None]:
    """How much faster the result is than the original in eager PyTorch, and than its fastest float."""
    report = Report.from_json({"rows": run["rows"]})
    shipped = compare.deployed(compare.final(report))
    if shipped is None:
        return {"eager": None, "float": None}
    base = compare.baselines(report, shipped)
    return {name: compare.speedup(base[name], shipped) for name in ("eager", "float")}


def standings(family: Family, runs_of: Mapping[str, Sequence[Run]]) -> list[Standing]:
    """The recipes of a family that have runs. What is lost is against the family's dense model, of all that begin with it."""
    begin = [run for name in family.recipes for run in runs_of.get(name, ()) if _begins_with(run, family)]
    dense = [dense_row(run["rows"]) for run in begin]
    found = []
    for name in family.recipes:
        runs = runs_of.get(name, ())
        faster = [times for run in runs if (times := speeds(run)["float"])]
        if runs and dense and faster:
            found.append(_standing(name, runs, dense, statistics.mean(faster)))
    return found


def _standing(name: str, runs: Sequence[Run], dense: Sequence[Run], faster: float) -> Standing:
    last = [run["rows"][-1] for run in runs]
    after = statistics.mean(row["value"] for row in last)
    size = statistics.mean(row["bytes"] for row in last)
    return Standing(
        recipe=name,
        runs=len(runs),
        value=after,
        lost=statistics.mean(row["value"] for row in dense) - after,
        bytes=size,
        smaller=statistics.mean(row["bytes"] for row in dense) / size,
        latency_ms=statistics.mean(row["latency_ms"] for row in last),
        time=1 / faster,
    )


def _begins_with(run: Run, family: Family) -> bool:
    return bool(run.get("dense") == family.dense)
