"""What a reader gives: the samples of one part of a data set, with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
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
