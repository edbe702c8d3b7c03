"""Cuts of a training part: seeded, stratified by class, disjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import hashing

Rows = NDArray[np.int64]
MISSING = 0.1  # of a part's rows of a class; if more are missing, groups behind a large one are looked at


def strata(labels: NDArray[Any]) -> NDArray[np.int64]:
    """What a cut is stratified by: classes as they are, scores in groups of like size, ten of them where there are many.

    >>> strata(np.arange(60, dtype=np.float32))[[0, 19, 20, 59]].tolist()
    [0, 0, 1, 2]
    """
    if labels.dtype.kind != "f":
        return labels
    groups = min(10, max(1, len(labels) // 20))
    order = np.argsort(labels, kind="stable")
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) * groups // max(len(labels), 1)
    return places


def stratified(labels: NDArray[np.int64], count: int, seed: int, purpose: str) -> Rows:
    """Choose `count` rows so that each class has its share of them, to the nearest sample.

    >>> labels = np.repeat([0, 1], [30, 10])
    >>> chosen = stratified(labels, 8, seed=0, purpose="validation")
    >>> np.bincount(labels[chosen]).tolist()
    [6, 2]
    """
    classes, members = np.unique(labels, return_inverse=True)
    sizes = np.bincount(members, minlength=len(classes))
    wanted = _shares(sizes, count)
    shuffled = hashing.permutation(hashing.key(seed, purpose), len(labels))
    by_class = shuffled[np.argsort(members[shuffled], kind="stable")]
    ends = np.cumsum(sizes)
    chosen = [
        by_class[end - size : end - size + want] for end, size, want in zip(ends, sizes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def partition(
    labels: NDArray[np.int64], counts: dict[str, int | float], seed: int, *, what: str
) -> dict[str, Rows]:
    """Cut parts of the given counts, or shares, off the rows; ``"train"`` is what is left.

    >>> parts = partition(np.arange(100) % 5, {"validation": 20, "calibration": 0.1}, 0, what="the data")
    >>> {name: len(rows) for name, rows in parts.items()}
    {'train': 70, 'validation': 20, 'calibration': 10}
    """
    total = len(labels)
    numbers = _numbers(counts, total, what)
    left = np.arange(total)
    parts: dict[str, Rows] = {}
    for name, number in numbers.items():
        if number:
            chosen = stratified(labels[left], number, seed, name)
            parts[name] = left[chosen]
            left = np.delete(left, chosen)
    return {"train": left, **parts}


def partition_groups(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    counts: dict[str, int | float],
    seed: int,
    *,
    what: str,
) -> dict[str, Rows]:
    """Like `partition`, but rows of the same group stay together, so that a part has at most its count.

    >>> groups = np.arange(100) // 2
    >>> parts = partition_groups(groups % 5, groups, {"validation": 20}, 0, what="the data")
    >>> len(parts["validation"]), bool(set(groups[parts["validation"]]) & set(groups[parts["train"]]))
    (20, False)
    """
    numbers = _numbers(counts, len(labels), what)
    _, firsts, members, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    kinds = labels[firsts]  # a group counts for the class of its first row
    free = np.ones(len(firsts), bool)
    parts: dict[str, Rows] = {}
    for name, number in numbers.items():
        if not number:
            continue
        chosen = np.zeros(len(firsts), bool)
        shuffled = hashing.permutation(hashing.key(seed, name), len(firsts))
        there = np.unique(kinds[free])
        rooms = _shares(np.asarray([int(sizes[free & (kinds == kind)].sum()) for kind in there]), number)
        for kind, room in zip(there, rooms, strict=True):
            candidates = shuffled[free[shuffled] & (kinds[shuffled] == kind)]
            chosen[candidates[_fitting(sizes[candidates], room)]] = True
        free &= ~chosen
        parts[name] = np.flatnonzero(chosen[members])
    return {"train": np.flatnonzero(free[members]), **parts}


def _fitting(sizes: NDArray[np.int64], room: int) -> NDArray[np.bool_]:
    """Which groups are taken: one after another to the first that is too large, and beyond it where much is missing.

    >>> _fitting(np.array([1, 90] + [1] * 30), 20).nonzero()[0].tolist() == [0, *range(2, 21)]
    True
    """
    taken = np.cumsum(sizes) <= room
    left = room - int(sizes[taken].sum())
    if left > MISSING * room:
        for place in np.flatnonzero(~taken).tolist():
            if sizes[place] <= left:
                taken[place] = True
                left -= int(sizes[place])
    return taken


def limited(rows: Rows, labels: NDArray[np.int64], limit: int | None, seed: int) -> Rows:
    """At most `limit` of the rows, stratified; `labels` are those of the rows."""
    if limit is None or limit >= len(rows):
        return rows
    return rows[stratified(labels, limit, seed, "limit")]


def _shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of each class, so that they are `count` together: the largest remainders are rounded up."""
    exact = sizes * (count / max(int(sizes.sum()), 1))
    wanted = np.floor(exact).astype(np.int64)
    rest = count - int(wanted.sum())
    wanted[np.argsort(-(exact - wanted), kind="stable")[:rest]] += 1
    return wanted


def _numbers(counts: dict[str, int | float], total: int, what: str) -> dict[str, int]:
    """The counts in samples, which must leave some to train on."""
    numbers = {name: _number(count, total) for name, count in counts.items()}
    if sum(numbers.values()) >= total:
        asked = ", ".join(f"{name} {number:,}" for name, number in numbers.items() if number)
        raise DataError(
            f"{what} has {total:,} samples, and {asked} are to be cut from it, which leaves none to train on; "
            f"set smaller numbers, or shares such as validation: 0.1"
        )
    return numbers


def _number(count: int | float, total: int) -> int:
    return max(1, round(count * total)) if isinstance(count, float) and count > 0 else int(count)
