"""What a training run leaves behind: one entry an epoch, and which was best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """Loss, terms, validation metric, learning rate and seconds of every epoch.

    >>> history = History()
    >>> history.add({"epoch": 1, "loss": 0.7, "terms": {}, "metric": 0.8, "lr": 0.1, "seconds": 2.0})
    True
    >>> history.add({"epoch": 2, "loss": 0.6, "terms": {}, "metric": 0.7, "lr": 0.1, "seconds": 2.0})
    False
    >>> history.best_epoch, history.best_value, history.seconds
    (1, 0.8, 4.0)
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_value: float | None = None
    best_epoch: int | None = None
    steps: int = 0
    seconds: float = 0.0

    def add(self, entry: dict[str, Any]) -> bool:
        """Append an epoch; say whether it is the best so far (the first of equals is)."""
        self.epochs.append(entry)
        self.seconds += entry["seconds"]
        metric = entry["metric"]
        if (
            metric is None
            or math.isnan(metric)
            or (self.best_value is not None and metric <= self.best_value)
        ):
            return False
        self.best_value, self.best_epoch = metric, entry["epoch"]
        return True

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        return {
            "epochs": self.epochs,
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "steps": self.steps,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """The inverse of `to_dict`."""
        return cls(**values)
