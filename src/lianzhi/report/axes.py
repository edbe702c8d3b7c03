"""Scales of charts: from values to a place between two ends, with ticks that are round."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_FROM = 4.0


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0–1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: list[float], *, least: float = 0.0, zero: bool = False) -> Axis:
    """Return a scale with round ticks around the values, spanning `least` at the least.

    >>> linear_axis([87.1, 93.1]).ticks
    (86.0, 88.0, 90.0, 92.0, 94.0)
    """
    low, high = (0.0 if zero else min(values)), max(values)
    span = max(high - low, least, abs(high) * 1e-6, 1e-12)
    middle = (low + high) / 2
    if not zero:
        low, high = middle - span * 0.55, middle + span * 0.55
    else:
        high = low + span * 1.1
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(first * step, last * step, tuple(round(i * step, 10) for i in range(first, last + 1)))


def log_axis(values: list[float]) -> Axis:
    """Return a logarithmic scale with ticks at 1, 2 and 5.

    >>> log_axis([0.15, 1.7]).ticks
    (0.2, 0.5, 1.0, 2.0)
    """
    low, high = min(values) / 1.35, max(values) * 1.35
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = (round(step * 10.0**power, 12) for power in powers for step in steps)
    return Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high), log=True)


def x_axis(values: list[float]) -> Axis:
    """Return a scale from zero, or a logarithmic one where the values span more than fourfold.

    >>> x_axis([1.0, 3.0]).low, x_axis([1.0, 20.0]).log
    (0.0, True)
    """
    if min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        return log_axis(values)
    return linear_axis(values, zero=True)


def _round_step(step: float) -> float:
    """Round up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= step * 0.999)
