"""How likely a module is replaced, and which ones are: functions of the update, the seed and the sample.

Constant or linear rates are those of BERT-of-Theseus (2002.02925), section 3; a rate for each module is our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lianzhi.tasks import hashing


def linear(number: int, total: int, *, start: float, slope: float | None = None) -> float:
    """min(1, k·t + b) at update t of `total`, counted from 0. Without a slope k, it would be 1 at t = total.

    >>> [linear(number, 4, start=0.5) for number in range(5)]
    [0.5, 0.625, 0.75, 0.875, 1.0]
    >>> linear(3, 10, start=0.5, slope=0.25)
    1.0
    """
    slope = (1 - start) / max(total, 1) if slope is None else slope
    return min(1.0, start + slope * number)


def spread(rate: float, order: Sequence[int], share: float) -> list[float]:
    """A rate for each module, whose mean is `rate`: the first ones of the order are ahead.

    With share 0 all have the same; with 1 they go one after another, each from 0 to 1 while the others wait.

    >>> spread(0.5, [2, 1, 0], 1.0)
    [0.0, 0.5, 1.0]
    >>> spread(0.5, [2, 1, 0], 0.5)
    [0.25, 0.5, 0.75]
    """
    found = [0.0] * len(order)
    for place, module in enumerate(order):
        turn = min(1.0, max(0.0, len(order) * rate - place))
        found[module] = (1 - share) * rate + share * turn
    return found


def draw(seed: int, number: int, rates: Sequence[float], ids: Tensor | None = None) -> list[bool | Tensor]:
    """Which modules are replaced in update `number`: of the whole batch, or, with ids, of each sample.

    >>> draw(0, 0, [0.0, 1.0])
    [False, True]
    >>> draw(0, 0, [0.5], torch.arange(4))[0].shape
    torch.Size([4])

    A function of its arguments alone: a run that was stopped draws the same as one that was not, and so do all
    processes, and all batches that are accumulated to one update. Where all samples agree, one answer is given.
    """
    if ids is None:
        numbers = hashing.uniform(hashing.key(seed, number, "replaced"), np.arange(len(rates)))
        return [bool(value < rate) for value, rate in zip(numbers, rates, strict=True)]
    samples = ids.cpu().numpy()
    found: list[bool | Tensor] = []
    for module, rate in enumerate(rates):
        values = hashing.uniform(hashing.key(seed, number, "replaced", module), samples) < rate
        alike = values.all() or not values.any()
        found.append(bool(values.all()) if alike else torch.from_numpy(values))
    return found
