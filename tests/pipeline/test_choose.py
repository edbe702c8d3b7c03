"""The decision what ships: fastest of those accurate enough, smallest among equals."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lianzhi.errors import TargetError
from lianzhi.pipeline.choose import Candidate, choose
from lianzhi.recipe import Measure


def candidate(runtime, precision, ms, validation, size=1000):
    latencies = [
        {"runtime": runtime, "precision": precision, "batch": 1, "threads": 2, "median_ms": ms, "p90_ms": ms}
    ]
    return Candidate(runtime, precision, Path(f"{runtime}-{precision}.onnx"), latencies, ms, validation, size)


@pytest.fixture
def run():
    return SimpleNamespace(
        recipe=SimpleNamespace(measure=Measure(max_drop=0.01), target="auto", precision=None)
    )


def test_the_fastest_accurate_one(run):
    found = [
        candidate("a", "f32", 4.0, 0.92),
        candidate("a", "int8", 1.0, 0.915),
        candidate("b", "int8", 2.0, 0.92),
    ]
    decision = choose(run, found, 0.92)
    assert (decision.chosen.runtime, decision.chosen.precision) == ("a", "int8")
    assert [line["verdict"] for line in decision.record["candidates"]] == ["slower", "kept", "slower"]


def test_an_inaccurate_one_is_not_kept(run):
    found = [candidate("a", "f32", 4.0, 0.92), candidate("a", "int8", 1.0, 0.90)]
    decision = choose(run, found, 0.92)
    assert decision.chosen.precision == "f32"
    assert "loses too much accuracy" in decision.record["reason"]
    assert "too inaccurate" in decision.record["candidates"][1]["verdict"]


def test_int8_that_is_slower_is_not_kept_and_said(run):
    found = [candidate("a", "f32", 1.0, 0.92), candidate("a", "int8", 3.0, 0.92)]
    decision = choose(run, found, 0.92)
    assert decision.chosen.precision == "f32"
    assert "int8 on a is not kept: 3 ms" in decision.record["reason"]


def test_among_equals_the_smaller_file(run):
    found = [candidate("a", "f32", 1.00, 0.92, size=4000), candidate("a", "int8", 1.04, 0.92, size=1000)]
    assert choose(run, found, 0.92).chosen.precision == "int8"


def test_none_accurate_keeps_the_most_accurate_and_says_so(run):
    found = [candidate("a", "f32", 1.0, 0.80), candidate("a", "int8", 0.5, 0.70)]
    decision = choose(run, found, 0.92)
    assert decision.chosen.precision == "f32"
    assert "no candidate reached" in decision.record["reason"]


def test_no_candidate(run):
    with pytest.raises(TargetError, match="no candidate"):
        choose(run, [], 0.9)
