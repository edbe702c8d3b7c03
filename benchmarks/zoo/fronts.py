"""What `composed.py` prints: of each model its fronts, and whether the rules of its goals hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lianzhi.report import format
from lianzhi.report.charts import Point, front
from zoo.goals import FAMILIES, GOALS, Family, Standing, standings
from zoo.table import markdown
from zoo.text import Text, written

SIDES = {"bytes": Text("bytes", "字节"), "time": Text("time", "时间")}
HEADS = (
    "recipe",
    "accuracy",
    "change, points",
    "file",
    "smaller",
    "latency",
    "over the best float",
    "on the front of",
)
GOAL_HEADS = (
    "goal",
    "recipe",
    "change, points",
    "file",
    "smaller",
    "over the best float",
    "rule",
    "better on record",
)


def printed(records: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """A table of recipes and one of goals for each model that has runs."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for key, run in records:
        runs.setdefault(key.partition(" | ")[0], []).append(run)
    parts = []
    for family in FAMILIES:
        found = standings(family, runs)
        if found:
            parts += [
                "",
                f"{family.title}, against {family.dense}",
                "",
                _recipes(found),
                "",
                _goals(family, found),
            ]
    return "\n".join(parts)


def on_fronts(found: Sequence[Standing]) -> dict[str, list[str]]:
    """On which front a recipe is: bytes against accuracy, time against accuracy."""
    sides: dict[str, list[str]] = {one.recipe: [] for one in found}
    for name in SIDES:
        for point in front([Point(one.recipe, getattr(one, name), one.value, "") for one in found]):
            sides[point.label].append(name)
    return sides


def _recipes(found: Sequence[Standing]) -> str:
    sides = on_fronts(found)
    rows = [
        (
            one.recipe,
            format.metric_value(one.value),
            format.metric_change(one.value, one.value + one.lost),
            format.size(one.bytes),
            format.times(one.smaller),
            format.milliseconds(one.latency_ms),
            format.times(1 / one.time),
            " and ".join(sides[one.recipe]) or "–",
        )
        for one in found
    ]
    return markdown(HEADS, rows, "en")


def _goals(family: Family, found: Sequence[Standing]) -> str:
    rows = []
    for goal in GOALS:
        made, better = goal.made(family, found), goal.better(family, found)
        name = written(goal.title, "en")
        if made is None:
            rows.append((name, family.made_for[goal.name], *("–",) * 4, "not run yet", "–"))
            continue
        rows.append(
            (
                name,
                made.recipe,
                format.metric_change(made.value, made.value + made.lost),
                format.size(made.bytes),
                format.times(made.smaller),
                format.times(1 / made.time),
                f"{'met' if goal.met(made) else 'MISSED'}: {written(goal.rule, 'en')}",
                better.recipe if better else "–",
            )
        )
    return markdown(GOAL_HEADS, rows, "en")
