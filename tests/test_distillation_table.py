"""The tables that the benchmarks of students print."""

from __future__ import annotations

import argparse
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
    over = importlib.import_module("distillation").gain([run], alone)
    assert line("pkd", [run], teacher, None, over, least).split(" | ")[5] == said


@pytest.mark.parametrize(
    ("values", "said"),
    [((0.90, 0.91), "+2.50 > 0.71 met"), ((0.88, 0.89), "+0.50 > 0.71 MISSED"), ((0.95,), "")],
)
def test_a_method_that_is_to_pass_another(monkeypatch, values, said):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("distillation")
    sizes = {"layers": 3, "width": 384, "ffn": 1536, "parameters": 10**7, "outside_tables": 10**6}

    def runs(*found: float) -> list[dict[str, Any]]:
        return [{"value": value, "bytes": 10**7, "latencies": {}, **sizes} for value in found]

    other, teacher = runs(0.878, 0.882), runs(0.9)[0]
    passed = benchmark.beyond(runs(*values), other)
    cells = benchmark.line("theseus_plus", runs(*values), teacher, None, passed=passed).split(" | ")
    assert cells[4] == said


def test_times_are_the_best_of_passes_in_turns_and_those_of_every_seed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark, records = (importlib.import_module(name) for name in ("distillation", "records"))
    given = argparse.Namespace(task="rte", work=tmp_path, epochs=3, trial=False)
    teacher, student = tmp_path / "teacher", tmp_path / "untrained-kd"
    record = records.Records("distillation", folder=tmp_path / "results")
    old = {"value": 0.5, "latencies": {"pytorch f32": 90.0, "onnxruntime f32": 80.0}}
    bare = {"value": 0.4, "latencies": {}}
    record.add("rte | kd | 1 | 3 epochs", bare)
    for key in ("rte | teacher", "rte | kd | 0 | 3 epochs", "sst2 | teacher"):
        record.add(key, old)
    times, asked = iter([2.0, 4.0, 1.0, 3.0, 3.0, 5.0]), []

    def measured(folder, **options):
        asked.append(folder)
        ms = next(times)
        found = (("pytorch", ms), ("onnxruntime", ms / 2), ("openvino", ms / 4))
        return {
            "latencies": [{"runtime": name, "precision": "f32", "median_ms": took} for name, took in found]
        }

    monkeypatch.setattr(benchmark.jobs, "measure_model", measured)
    monkeypatch.setattr(benchmark, "stand_in", lambda method, *rest: tmp_path / f"untrained-{method}")
    benchmark.time_again(record, teacher, None, given)
    assert asked == [student, teacher] * benchmark.PASSES
    assert record["rte | teacher"] == {
        "value": 0.5,
        "latencies": {"pytorch f32": 3.0, "onnxruntime f32": 1.5},
    }
    for seed, value in ((0, 0.5), (1, 0.4)):
        run = record[f"rte | kd | {seed} | 3 epochs"]
        assert run == {"value": value, "latencies": {"pytorch f32": 1.0, "onnxruntime f32": 0.5}}
    assert record["sst2 | teacher"] == old


def test_a_cnn_is_beside_the_student_alone_of_its_own_seeds(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark, records = (importlib.import_module(name) for name in ("distillation_cnn", "records"))
    found = records.Records("students", folder=tmp_path)
    found.add("teacher", {"top1": 0.9})
    for key, top in {
        "alone | 0": 0.7,
        "alone | 1": 0.6,
        "kd | 0": 0.72,
        "kd | 1": 0.66,
        "dkd | 1": 0.65,
        "dkd | 2": 0.9,
    }.items():
        found.add(f"{key} | 5 epochs", {"top1": top, "epoch_seconds": 1.0})
    lines = benchmark.table(found, 5, ["alone", "kd", "dkd", "dist"]).splitlines()[3:]
    assert [line.split(" | ")[2] for line in lines] == ["", "+4.00", "+5.00"]


def test_a_text_student_is_beside_others_of_its_own_seeds(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark, records = (importlib.import_module(name) for name in ("distillation", "records"))
    found = records.Records("students", folder=tmp_path)
    sizes = {
        "metric": "accuracy",
        "bytes": 1,
        "parameters": 1,
        "outside_tables": 1,
        "layers": 3,
        "width": None,
    }

    def add(key: str, value: float) -> None:
        found.add(f"rte | {key}", {"value": value, "latencies": {}, **sizes})

    add("teacher", 0.9)
    for key, value in {
        "fine-tuned | 1": 0.5,
        "alone | 0": 0.7,
        "alone | 1": 0.6,
        "kd | 0": 0.72,
        "kd | 1": 0.66,
        "pkd | 1": 0.65,
    }.items():
        add(f"{key} | 3 epochs", value)
    rows = [line.split(" | ") for line in benchmark.table(found, "rte", 3).splitlines()[3:]]
    assert {row[0].strip("| "): row[5:7] for row in rows} == {
        "fine-tuned": ["", ""],
        "alone": ["", "+10.00"],  # of seed 1
        "kd": ["+4.00", "+16.00"],
        "pkd": ["+5.00", "+15.00"],
    }
