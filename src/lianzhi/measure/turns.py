"""Two things timed in turns, on a machine that gets slower and faster, where runtimes' threads spin.

Neighbouring blocks of calls are compared, so that what slows the machine slows both; and a block begins with calls
that are not timed, until the threads of the other one are asleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_MS, SETTLE_MS = 20.0, 80.0


@dataclass(frozen=True)
class Turns:
    """Two things that were timed in turns: trial over original, and the median milliseconds of each."""

    ratio: float
    original_ms: float
    trial_ms: float


def in_turns(original: Callable[[], Any], trial: Callable[[], Any], rounds: int) -> float:
    """Trial time over original time: the median, over rounds, of the quotient of two neighbouring blocks of calls.

    >>> 0 < in_turns(lambda: sum(range(9000)), lambda: sum(range(90)), 1) < 1
    True

    A runtime's threads spin after a call in wait for the next one (ONNX Runtime's for 40 to 70 ms), and take the cores
    from whoever runs then: so a block begins with calls that are not timed.
    """
    return both_in_turns(original, trial, rounds).ratio


def both_in_turns(
    original: Callable[[], Any],
    trial: Callable[[], Any],
    rounds: int,
    *,
    clock: Callable[[], int] | None = None,
) -> Turns:
    """As `in_turns`, with the milliseconds of both. `clock` gives nanoseconds: the processor's, say, in place of time.

    >>> turns = both_in_turns(lambda: sum(range(9000)), lambda: sum(range(90)), 1)
    >>> turns.trial_ms < turns.original_ms
    True
    """
    clock = clock or time.perf_counter_ns
    for call in (original, trial):
        call()
    once = min(_block(original, 1, clock), _block(original, 1, clock))
    calls = max(3, int(BLOCK_MS / max(once, 1e-3)))

    def block(call: Callable[[], Any]) -> float:
        settle(call)
        return _block(call, calls, clock)

    pairs = [(block(trial), block(original)) for _ in range(rounds)]
    after, before = (float(np.median(times)) for times in zip(*pairs, strict=True))
    return Turns(float(np.median([new / old for new, old in pairs])), before, after)


def settle(call: Callable[[], Any]) -> None:
    """Call until the threads of what ran before are asleep."""
    start = time.perf_counter_ns()
    while (time.perf_counter_ns() - start) / 1e6 < SETTLE_MS:
        call()


def _block(call: Callable[[], Any], calls: int, clock: Callable[[], int]) -> float:
    """The median of some calls, in milliseconds."""
    times = []
    for _ in range(calls):
        start = clock()
        call()
        times.append((clock() - start) / 1e6)
    return float(np.median(times))
