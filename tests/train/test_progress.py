"""What a log shows of a training run: a line an epoch, and one every so often within an epoch."""

import pytest

from lianzhi.train import progress
from lianzhi.train.history import History
from lianzhi.train.totals import Totals


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_log_gets_a_line_every_twenty_seconds(clock, capsys):
    totals = Totals()
    with progress.Bar("train", 100, 100, "top1", shown=True) as bar:
        for step in range(1, 101):
            clock.now += 1.0
            totals.add(step, 4, ("loss",), [0.5])
            bar.step(step, 4, totals, 0.1)
        entry = {"epoch": 1, "loss": 0.5, "terms": {}, "metric": None, "lr": 0.1, "seconds": 100.0}
        bar.epoch(entry, History(), 400)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" loss")[0] for line in lines[:-1]] == [
        f"train step {step}/100" for step in (20, 40, 60, 80, 100)
    ]
    assert lines[-1].startswith("train 1/1 · loss 0.5")


def test_nothing_is_shown_when_it_is_not_wanted(clock, capsys):
    with progress.Bar("train", 10, 10, "top1", shown=False) as bar:
        clock.now = 100.0
        bar.step(1, 4, Totals(), 0.1)
    assert capsys.readouterr().err == ""
