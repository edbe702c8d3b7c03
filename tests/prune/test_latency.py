"""The share of a latency: what is timed, and when."""

from __future__ import annotations

import pytest

from lianzhi.prune import latency


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
    monkeypatch.setattr(latency, "time", machine)
    share = latency.in_turns(lambda: machine.call("wide", 2.0), lambda: machine.call("slim", 1.0), 9)
    assert share == pytest.approx(0.5, abs=0.01)
