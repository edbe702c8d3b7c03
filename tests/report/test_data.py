"""Reading and writing report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lianzhi.errors import ArtifactError
from lianzhi.report import Report

Content = dict[str, Any]


def test_round_trip(report: Report, tmp_path: Path) -> None:
    text = report.to_json()
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert Report.from_json(tmp_path / "report.json") == report
    assert Report.from_json(str(tmp_path)) == report, "a folder means the report.json in it"
    assert Report.from_json(json.loads(text)).to_json() == text


def test_promised_keys(content: Content, report: Report) -> None:
    written = json.loads(report.to_json())
    assert set(content) <= set(written)
    for given, row in zip(content["rows"], written["rows"], strict=True):
        for key in given:
            assert row[key] == given[key]


def test_a_report_says_its_format_and_one_of_before_is_read(content: Content) -> None:
    assert "format" not in content
    report = Report.from_json(content)
    assert (report["format"], "format" in report.extra) == (1, False)
    assert Report.from_json({"format": 1, **content}) == report
    with pytest.raises(ArtifactError, match="has format 2, and this version reads 1; update lianzhi"):
        Report.from_json({"format": 2, **content})


def test_same_content_same_text(content: Content) -> None:
    shuffled = dict(reversed(content.items()))
    shuffled["rows"] = [dict(reversed(row.items())) for row in shuffled["rows"]]
    assert Report.from_json(shuffled).to_json() == Report.from_json(content).to_json()


def test_reading_copies(content: Content) -> None:
    report = Report.from_json(content)
    content["rows"][0]["value"] = 0.1
    assert report.rows[0]["value"] == 0.9312


def test_unknown_keys_are_kept(content: Content) -> None:
    content["future"] = {"a": 1}
    content["rows"][1]["sqnr"] = 31.5
    content["rows"][1]["latencies"][0]["energy"] = 2.0
    written = json.loads(Report.from_json(content).to_json())
    assert written["future"] == {"a": 1}
    assert written["rows"][1]["sqnr"] == 31.5
    assert written["rows"][1]["latencies"][0]["energy"] == 2.0


def test_numbers_of_numpy_and_paths_become_plain(content: Content) -> None:
    content["rows"][0]["value"] = np.float32(0.5)
    content["rows"][0]["parameters"] = np.int64(7)
    content["artifact"]["path"] = Path("out/demo")
    report = Report.from_json(content)
    assert type(report.rows[0]["value"]) is float
    assert type(report.rows[0]["parameters"]) is int
    assert report.artifact["path"] == "out/demo"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_not_finite_is_unknown(content: Content, value: float | None) -> None:
    content["rows"][1]["value"] = value
    content["rows"][1]["latency_ms"] = value
    report = Report.from_json(content)
    assert report.rows[1]["value"] is None
    assert "NaN" not in report.to_json()
    assert "nan" not in report.table()


def test_nan_in_a_file_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text('{"rows": [{"step": "original", "value": NaN}]}')
    assert Report.from_json(file).rows[0]["value"] is None


BAD_ROWS = [
    ({"step": 3}, "rows[0]: a row is an object with a 'step'"),
    ({"step": "a", "value": 93.2}, "value is 93.2; a metric is a share"),
    ({"step": "a", "value": "0.9"}, "value must be a number, got '0.9'"),
    ({"step": "a", "value": True}, "value must be a number, got True"),
    ({"step": "a", "parameters": -1}, "parameters is -1; it cannot be negative"),
    ({"step": "a", "bytes": "1 MB"}, "bytes must be a number, got '1 MB'"),
    ({"step": "a", "runtime": 1}, "runtime must be text, got a int"),
    ({"step": "a", "latencies": {}}, "'latencies' must be a list, got a dict"),
    ({"step": "a", "latencies": [{"median_ms": 1}]}, "latencies[0]: a latency is an object with a 'runtime'"),
    ({"step": "a", "latencies": [{"runtime": "x", "median_ms": -1}]}, "latencies[0]: median_ms is -1"),
    ({"step": "a", "details": []}, "'details' must be an object, got a list"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows_are_named(row: Content, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Report.from_json({"rows": [row]})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "'rows' must be a list with at least"),
        ({"rows": None}, "'rows' must be a list with at least"),
        ({"recipe": "x"}, "'recipe' must be an object, got a str"),
        ({"notes": "x"}, "'notes' must be a list, got a str"),
        ({"layers": [{"name": "conv", "macs": -1}]}, "layers[0]: macs is -1; it cannot be negative"),
        ({"layers": [{"before": 3}]}, "layers[0]: a layer is an object with a 'name'"),
        ({"layers": [{"name": "x", "before": "many"}]}, "layers[0]: before must be a number"),
        (
            {"environment": {"device": object()}},
            "report.environment.device: a object cannot be written as JSON",
        ),
    ],
)
def test_bad_content_is_named(content: Content, change: Content, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Report.from_json(content | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"rows"', "\x00", "[" * 100_000, '{"rows": 1}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(ArtifactError, match=r"report\.json"):
        Report.from_json(file)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x80PK")
    with pytest.raises(ArtifactError, match="not JSON"):
        Report.from_json(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"nothing.json: cannot be read .* give a report.json or the folder"
    ):
        Report.from_json(tmp_path / "nothing.json")


def test_deep_nesting_is_refused(content: Content) -> None:
    for _ in range(200):
        content["recipe"] = {"a": content["recipe"]}
    with pytest.raises(ArtifactError, match="nested deeper"):
        Report.from_json(content)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ArtifactError, match="larger than 64 MiB"):
        Report.from_json(tmp_path)
