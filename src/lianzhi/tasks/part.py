"""What a reader gives: the samples of one part of a data set, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks.stores import Store


@dataclass(frozen=True)
class Part:
    """Samples and labels by row. `where` is the file or folder; `row` names a row in a message."""

    store: Store
    labels: NDArray[np.int64]
    where: str
    row: Callable[[int], str] | None = None

    def __post_init__(self) -> None:
        if len(self.store) != len(self.labels):
            raise DataError(
                f"{self.where}: {len(self.store)} samples and {len(self.labels)} labels; they must be as many"
            )
        if not len(self.labels):
            raise DataError(f"{self.where}: no samples; an empty part cannot be used")

    def name(self, row: int) -> str:
        """Where a row is."""
        return self.row(row) if self.row is not None else f"{self.where}, row {row}"


def check_labels(part: Part, num_classes: int) -> None:
    """Raise `DataError` for the first label that is not in 0 … num_classes - 1."""
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= num_classes))
    if len(wrong):
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"{part.name(int(wrong[0]))}: label {part.labels[wrong[0]]} is outside the class range "
            f"0 to {num_classes - 1}{more}; mend the labels, or set the number of classes"
        )


def as_labels(values: object, where: str) -> NDArray[np.int64]:
    """Class numbers as int64 of shape (samples,).

    >>> as_labels(np.array([[1.0], [2.0]]), "labels.npz")
    array([1, 2])
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: labels must be one class number a sample, got {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if len(wrong):
            raise DataError(f"{where}, row {wrong[0]}: label {array[wrong[0]]} is not a class number")
    return array.astype(np.int64)


def named_classes(
    labels: dict[str, NDArray[Any]], names: Sequence[str] | None
) -> tuple[dict[str, NDArray[Any]], Sequence[str] | None]:
    """Labels of all parts as class numbers; class names, where labels are words, become numbers in sorted order.

    >>> numbers, names = named_classes({"train": np.array(["b", "a", "b"], object)}, None)
    >>> numbers["train"].tolist(), names
    ([1, 0, 1], ['a', 'b'])
    """
    if all(values.dtype != object for values in labels.values()):
        return labels, names
    if any(values.dtype != object for values in labels.values()):
        raise DataError("labels are class names in one part and class numbers in another; use one of the two")
    known = sorted(set(labels.get("train", next(iter(labels.values())))))
    numbers = {name: number for number, name in enumerate(known)}
    for part, values in labels.items():
        for row, name in enumerate(values):
            if name not in numbers:
                raise DataError(
                    f"{part}, row {row}: the class '{name}' is not in the training part{did_you_mean(name, known)}"
                )
    return {part: np.asarray([numbers[name] for name in values]) for part, values in labels.items()}, known
