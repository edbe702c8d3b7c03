"""What is remembered of a tensor over calibration: each batch's range, and a histogram of all values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from lianzhi.config import Config
from lianzhi.registry import Registry

BINS = 2048

registry = Registry("observers", "observer")


class ObserverConfig(Config):
    """Options of an observer; `histogram` says whether it needs a second pass over the data."""

    histogram: ClassVar[bool] = True


@dataclass
class Statistics:
    """Ranges of the batches, and 2048 equal bins over the whole range.

    >>> import torch
    >>> seen = Statistics()
    >>> for batch in (torch.tensor([0.0, 1.0]), torch.tensor([-3.0, 2.0])): seen.add_range(batch)
    >>> seen.low, seen.high
    (-3.0, 2.0)
    """

    batches: list[tuple[float, float]] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    @property
    def low(self) -> float:
        """The smallest value of all batches."""
        return min(low for low, _ in self.batches)

    @property
    def high(self) -> float:
        """The largest value of all batches."""
        return max(high for _, high in self.batches)

    def add_range(self, values: Tensor, *, same_batch: bool = False) -> None:
        """First pass: remember the batch's range; `same_batch`: these are more values of the last one."""
        low, high = (float(bound) for bound in values.detach().aminmax())
        if same_batch:
            known = self.batches.pop()
            low, high = min(low, known[0]), max(high, known[1])
        self.batches.append((low, high))

    def add_counts(self, values: Tensor) -> None:
        """Second pass: count the values in the bins between `low` and `high`."""
        if self.high > self.low:
            flat = values.detach().float().reshape(-1)
            self.counts += flat.histc(BINS, self.low, self.high).numpy().astype(np.int64)

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        return (edges[:-1] + edges[1:]) / 2
