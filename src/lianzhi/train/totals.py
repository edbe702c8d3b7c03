"""Means over an epoch of the loss and its terms, checked for NaN without waiting for an accelerator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

PENDING = 16


class NotFinite(ArithmeticError):
    """A loss was NaN or infinite."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"loss is {value} at step {step}")
        self.step, self.value = step, value


class Totals:
    """Sums weighted by samples. Tensors on an accelerator are read every `PENDING` steps.

    >>> totals = Totals()
    >>> totals.add(1, 2, ("loss",), [1.0]); totals.add(2, 1, ("loss",), [4.0])
    >>> totals.means()
    {'loss': 2.0}
    """

    def __init__(self, samples: int = 0, sums: dict[str, float] | None = None) -> None:
        self.samples = samples
        self.sums = dict(sums or {})
        self._pending: list[tuple[int, int, Sequence[str], Tensor]] = []

    def add(self, step: int, samples: int, names: Sequence[str], values: list[float] | Tensor) -> None:
        """Count a step. The first of `values` is the loss.

        Raises:
            NotFinite: the loss of this step, or of one noted before it, is NaN or infinite.
        """
        if isinstance(values, Tensor):
            self._pending.append((step, samples, names, values))
            if len(self._pending) >= PENDING:
                self.settle()
        else:
            self._count(step, samples, names, values)

    def settle(self) -> None:
        """Read what is pending."""
        pending, self._pending = self._pending, []
        for step, samples, names, values in pending:
            self._count(step, samples, names, values.tolist())

    def means(self) -> dict[str, float]:
        """The mean of every term so far, without waiting for what is pending."""
        return {name: value / self.samples for name, value in self.sums.items()} if self.samples else {}

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"samples": self.samples, "sums": self.sums}

    def _count(self, step: int, samples: int, names: Sequence[str], values: list[float]) -> None:
        if not math.isfinite(values[0]):
            raise NotFinite(step, values[0])
        self.samples += samples
        for name, value in zip(names, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + samples * value
