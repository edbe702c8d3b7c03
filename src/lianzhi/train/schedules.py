"""Learning-rate schedules: pure functions of the optimizer step, as a factor of the peak learning rate.

Warm-up is linear and the schedule runs over what is left, so that `cosine` (1608.03983), `polynomial`
and `constant` start from 1 where the warm-up ends. `step` and `exponential` count from the first step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lianzhi.train.options import TrainOptions


def cosine(step: float, total: float, *, final: float = 0.0) -> float:
    """Half a cosine from 1 to `final`.

    >>> [round(cosine(step, 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    share = min(step / total, 1.0) if total > 0 else 1.0
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share))


def polynomial(step: float, total: float, *, power: float = 1.0, final: float = 0.0) -> float:
    """From 1 to `final` along (1 - t)^power.

    >>> polynomial(1, 4), polynomial(2, 4, power=2)
    (0.75, 0.25)
    """
    share = min(step / total, 1.0) if total > 0 else 1.0
    return final + (1 - final) * (1 - share) ** power


def step_decay(step: float, milestones: Sequence[float], *, gamma: float = 0.1) -> float:
    """Times `gamma` at every milestone (in steps) reached.

    >>> [step_decay(step, [2, 4], gamma=0.5) for step in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return float(gamma ** sum(step >= milestone for milestone in milestones))


def exponential(step: float, epoch_steps: float, *, gamma: float = 0.95) -> float:
    """Times `gamma` an epoch, smoothly.

    >>> exponential(20, 10, gamma=0.5)
    0.25
    """
    return float(gamma ** (step / epoch_steps))


def constant(step: float) -> float:
    """Always 1."""
    return 1.0


def warm_up(step: float, steps: float) -> float:
    """Linear from 1/steps to 1; 1 where there is no warm-up.

    >>> [warm_up(step, 4) for step in (0, 3, 9)]
    [0.25, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def when(moment: float, total: int, epoch_steps: int) -> float:
    """A share of the run (below 1) or epochs (from 1 on), in steps.

    >>> when(0.5, 100, 10), when(2, 100, 10)
    (50.0, 20)
    """
    return moment * total if moment < 1 else moment * epoch_steps


def factor(step: int, total: int, epoch_steps: int, options: TrainOptions) -> float:
    """The learning rate's factor at optimizer step `step` (from 0) of `total`.

    >>> factor(0, 100, 10, TrainOptions(warmup=0.1)), factor(10, 100, 10, TrainOptions(warmup=0.1))
    (0.1, 1.0)
    """
    warm = min(when(options.warmup, total, epoch_steps), total)
    if step < warm:
        return warm_up(step, warm)
    after, left = step - warm, total - warm
    if options.schedule == "cosine":
        return cosine(after, left, final=options.final)
    if options.schedule == "polynomial":
        return polynomial(after, left, power=options.power, final=options.final)
    if options.schedule == "step":
        milestones = [when(moment, total, epoch_steps) for moment in options.milestones]
        return step_decay(step, milestones, gamma=options.gamma)
    if options.schedule == "exponential":
        return exponential(step, epoch_steps, gamma=options.gamma)
    return constant(step)
