"""Exponential average of the batches' ranges: a single batch with an outlier weighs less.

``low = momentum * low + (1 - momentum) * batch_low`` from the second batch on, as in quantization-aware
training (Jacob et al., 1712.05877, section 3.1).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lianzhi.quantize.observers.statistics import ObserverConfig, Statistics, registry
from lianzhi.quantize.scheme import Scheme


class MovingAverage(ObserverConfig):
    """`momentum`: the weight of what was seen before."""

    histogram: ClassVar[bool] = False
    momentum: float = Field(default=0.9, ge=0, lt=1)


@registry.register(
    "moving_average",
    "exponential average of the batches' ranges",
    paper="https://arxiv.org/abs/1712.05877",
    config=MovingAverage,
)
def moving_average(
    seen: Statistics, scheme: Scheme, options: MovingAverage | None = None
) -> tuple[float, float]:
    """Averaged smallest and largest value.

    >>> moving_average(Statistics(batches=[(0.0, 1.0), (0.0, 2.0)]), Scheme(8), MovingAverage(momentum=0.5))
    (0.0, 1.5)
    """
    momentum = (options or MovingAverage()).momentum
    low, high = seen.batches[0]
    for batch_low, batch_high in seen.batches[1:]:
        low = momentum * low + (1 - momentum) * batch_low
        high = momentum * high + (1 - momentum) * batch_high
    return low, high
