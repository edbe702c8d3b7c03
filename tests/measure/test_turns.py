"""Two things timed in turns: what is timed, and when."""

from __future__ import annotations

import pytest

from lianzhi.measure import turns


class Machine:
    """Two models on a machine whose clock we hold: after a call its threads spin, and slow the other model's calls."""

    def __init__(self, spin_ms: float) -> None:
        self.now, self.spin_ms, self.last, self.until = 0.0, spin_ms, "", 0.0

    def call(self, name: str, milliseconds: float) -> None:
        if self.last not in ("", name) and self.now < self.until:
            milliseconds += 1.0
        else:
            self.last = name
        self.now += milliseconds
        if self.last == name:
            self.until = self.now + self.spin_ms

    def perf_counter_ns(self) -> int:
        return int(self.now * 1e6)


@pytest.mark.parametrize("spin", [0.0, 60.0])
def test_a_share_is_not_of_calls_that_the_other_models_threads_slow_down(monkeypatch, spin):
    machine = Machine(spin)
    monkeypatch.setattr(turns, "time", machine)
    share = turns.in_turns(lambda: machine.call("wide", 2.0), lambda: machine.call("slim", 1.0), 9)
    assert share == pytest.approx(0.5, abs=0.01)


def test_neighbouring_blocks_are_timed_in_turns(monkeypatch):
    calls, ticks = [], iter(range(0, 10**12, 1_000_000))
    monkeypatch.setattr(turns.time, "perf_counter_ns", lambda: next(ticks))
    share = turns.in_turns(lambda: calls.append("o"), lambda: calls.append("t"), 3)
    assert share == 1.0
    assert calls[:2] == ["o", "t"]
    order = "".join(calls[4:])
    block = len(order) // 6
    assert block > turns.SETTLE_MS
    assert order == ("t" * block + "o" * block) * 3
