"""What stands in a cell: means over seeds, changes, ratios. What is not known is a dash, never a zero."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from records import spread

from lianzhi.report import format
from zoo.results import Run
from zoo.text import ABSENT, MET, MISSED, Text


def values(runs: Sequence[Run], key: str) -> list[float]:
    """A number of each run that has it."""
    return [run[key] for run in runs if run.get(key) is not None]


def mean(runs: Sequence[Run], key: str) -> float | None:
    """Its mean; None where no run has it."""
    found = values(runs, key)
    return statistics.mean(found) if found else None


def share(runs: Sequence[Run], key: str) -> str:
    """Mean ± deviation of a share, in per cent.

    >>> share([{"top1": 0.9}, {"top1": 0.92}], "top1"), share([], "top1")
    ('91.00 ± 1.41', '–')
    """
    found = values(runs, key)
    return spread(found) if found else ABSENT


def change(runs: Sequence[Run], key: str, before: float | None) -> str:
    """How many points the mean differs from what was before.

    >>> change([{"top1": 0.9}], "top1", 0.91), change([], "top1", 0.91)
    ('−1.00', '–')
    """
    return format.metric_change(mean(runs, key), before)


def times(ratio: float | None) -> str:
    """A ratio, as the report writes it."""
    return format.times(ratio)


def ratio(before: float | None, after: float | None) -> str:
    """How many times smaller it has become."""
    return ABSENT if not before or not after else format.times(before / after)


def size(count: float | None) -> str:
    """Bytes, as the report writes them."""
    return format.size(count)


def rate(milliseconds: float | None, batch: int = 1) -> str:
    """Samples a second of a batch that takes so long.

    >>> rate(2.0), rate(16.0, 64), rate(None)
    ('500', '4,000', '–')
    """
    return ABSENT if not milliseconds else f"{1000 * batch / milliseconds:,.0f}"


def count(runs: Sequence[Run]) -> str:
    """How many runs stand behind a mean."""
    return str(len(runs)) if runs else ABSENT


def verdict(met: bool) -> Text:
    """Whether a bar was met."""
    return MET if met else MISSED
