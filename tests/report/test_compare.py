"""Ratios, baselines and speed-ups."""

from __future__ import annotations

from typing import Any

import pytest

from lianzhi.report import Report, compare


def entry(
    runtime: str, precision: str, median: float | None, *, batch: int = 1, threads: int = 2
) -> dict[str, Any]:
    return {
        "runtime": runtime,
        "precision": precision,
        "batch": batch,
        "threads": threads,
        "median_ms": median,
        "p90_ms": median,
    }


def two(before: list[dict[str, Any]], after: list[dict[str, Any]], **shipped: Any) -> Report:
    return Report.from_json(
        {"rows": [{"step": "original", "latencies": before}, {"step": "q", "latencies": after} | shipped]}
    )


def test_baselines_of_the_sample(report: Report) -> None:
    shipped = compare.deployed(compare.final(report))
    assert shipped is not None
    base = compare.baselines(report, shipped)
    named = {key: (value["runtime"], value["precision"]) for key, value in base.items() if value}
    assert named == {"eager": ("pytorch", "f32"), "float": ("openvino", "bf16"), "same": ("openvino", "f32")}


def test_speedups_by_hand() -> None:
    report = two(
        [entry("pytorch", "f32", 8.0), entry("onnxruntime", "f32", 4.0), entry("openvino", "bf16", 2.0)],
        [entry("onnxruntime", "int8", 0.5)],
    )
    found = next(item for item in compare.measured(report) if not item.original)
    assert (found.against_eager, found.against_float, found.against_same) == (16.0, 4.0, 8.0)


@pytest.mark.parametrize("changed", [{"threads": 1}, {"batch": 64}])
def test_unlike_measurements_are_never_compared(changed: dict[str, int]) -> None:
    report = two([entry("pytorch", "f32", 8.0, **changed)], [entry("pytorch", "f32", 4.0)])
    found = next(item for item in compare.measured(report) if not item.original)
    assert found.against_eager is None
    assert found.against_float is None


def test_int8_is_no_float_baseline() -> None:
    report = two(
        [entry("pytorch", "f32", 8.0), entry("openvino", "int8", 1.0)], [entry("openvino", "int8", 0.5)]
    )
    found = next(item for item in compare.measured(report) if not item.original)
    assert found.against_float == 16.0


def test_a_median_that_is_missing_is_no_baseline() -> None:
    report = two([entry("pytorch", "f32", None)], [entry("pytorch", "f32", 1.0)])
    assert all(item.against_eager is None for item in compare.measured(report))
    assert compare.fastest_floats(report) == []


def test_deployed_tells_precisions_of_equal_speed_apart() -> None:
    report = two(
        [entry("pytorch", "f32", 8.0)],
        [entry("openvino", "bf16", 1.0), entry("openvino", "int8", 1.0)],
        latency_ms=1.0,
        runtime="openvino",
        precision="int8",
        batch=1,
    )
    shipped = compare.deployed(report.rows[1])
    assert shipped is not None
    assert shipped["precision"] == "int8"


def test_deployed_without_a_list_of_latencies() -> None:
    report = Report.from_json({"rows": [{"step": "original", "latency_ms": 3.0, "runtime": "pytorch"}]})
    shipped = compare.deployed(report.rows[0])
    assert shipped is not None
    assert (shipped["runtime"], shipped["batch"], shipped["median_ms"]) == ("pytorch", 1, 3.0)


def test_names_and_split(report: Report) -> None:
    assert compare.model_name(report) == "resnet13"
    assert compare.task_name(report) == "fashion_mnist"
    assert compare.evaluated_on(report) == ("test", 10000)


def test_split_from_the_task_where_rows_do_not_say(content: dict[str, Any]) -> None:
    for row in content["rows"]:
        del row["split"], row["samples"]
    assert compare.evaluated_on(Report.from_json(content)) == ("test", 10000)


def test_a_model_that_began_as_an_artifact_has_its_folder_s_name():
    report = Report.from_json(
        {"rows": [{"step": "original"}], "recipe": {"model": {"artifact": "out/dense"}}}
    )
    assert compare.model_name(report) == "dense"
