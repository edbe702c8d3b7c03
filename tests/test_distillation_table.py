"""The table that the benchmark of text students prints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize(("teacher", "share"), [(0.8, "75.0%"), (0.0, ""), (-0.1, "")])
def test_of_a_teacher_that_learned_nothing_there_is_no_share(monkeypatch, teacher, share):
    """Matthews' correlation is 0 where a model answers all alike."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    line = importlib.import_module("distillation").line

    def run(value: float) -> dict[str, Any]:
        sizes = {"layers": 3, "width": 384, "ffn": 1536, "parameters": 10**7, "outside_tables": 10**6}
        return {"value": value, "bytes": 10**7, "latencies": {}, **sizes}

    cells = line("kd", [run(0.6)], run(teacher), 0.7).split(" | ")
    assert cells[3:5] == [share, "70.0% met" if share else "70.0% MISSED"]


@pytest.mark.parametrize(
    ("value", "least", "said"), [(0.8, 0.0, "+2.00 met"), (0.78, 0.0, "+0.00 MISSED"), (0.7, None, "-8.00")]
)
def test_beside_the_same_student_on_the_labels_alone(monkeypatch, value, least, said):
    monkeypatch.syspath_prepend(BENCHMARKS)
    line = importlib.import_module("distillation").line
    sizes = {"layers": 3, "width": 384, "ffn": 1536, "parameters": 10**7, "outside_tables": 10**6}
    run, teacher, *alone = (
        {"value": found, "bytes": 10**7, "latencies": {}, **sizes} for found in (value, 0.9, 0.77, 0.79)
    )
    assert line("pkd", [run], teacher, None, alone, least).split(" | ")[5] == said
