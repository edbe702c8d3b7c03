"""Damaged and forged files: the cases of the benchmark, a few of them here, all of them among the slow tests."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    "cases", [400, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_file_is_refused_or_right(cases, monkeypatch):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is measured as Linux tells it")
    monkeypatch.syspath_prepend(BENCHMARKS)
    found = importlib.import_module("deep_compression_mutations").run(cases, 1)
    assert sum(found["outcomes"].values()) == cases
    assert found["over_limits"] == 0
    assert any(outcome.endswith("refused") for outcome in found["outcomes"])
    assert any(outcome.endswith("read") for outcome in found["outcomes"])
