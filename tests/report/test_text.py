"""The printed table and Markdown."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console
from sample import hostile

from lianzhi.report import Report, format, table


def test_steps_table_by_hand() -> None:
    rows = [
        {
            "step": "original",
            "value": 0.9342,
            "parameters": 272474,
            "bytes": 1112345,
            "macs": 41_000_000,
            "latency_ms": 4.21,
        },
        {
            "step": "prune",
            "value": 0.9295,
            "parameters": 88_200,
            "bytes": 98_304,
            "macs": 15_200_000,
            "latency_ms": 0.31,
        },
    ]
    for row in rows:
        row |= {"runtime": "pytorch", "precision": "f32", "batch": 1, "latency_p90_ms": 5.0, "seconds": 3.0}
    text = Report.from_json({"rows": rows, "recipe": {"model": "resnet20"}}).table()
    *lines, last, unit = (" ".join(line.split()) for line in text.splitlines())
    assert lines == [
        "resnet20 · top-1",
        "",
        "Step top-1 Params Size MACs Latency p90 Runs on Time",
        "─" * (len(text.splitlines()[3]) - 1),
        "original 93.42% 272k 1.11 MB 41.0M 4.21 ms 5.00 ms pytorch 3.0 s",
        "f32",
        "prune 92.95% 88.2k 98.3 kB 15.2M 0.310 ms 5.00 ms pytorch 3.0 s",
        "−0.47 3.09× 11.3× 2.70× 13.6× f32",
        "",
    ]
    assert f"{last} {unit}" == (
        "Latency is the median at batch 1; × is against the original; MACs are of one sample; "
        "1 MB = 1,000,000 bytes."
    )


def test_honest_labels(report: Report) -> None:
    text = " ".join(report.table().split())
    assert "top-1 on test (10,000 samples)" in text
    assert "Fastest float of the original at batch 1: openvino bf16, 0.420 ms" in text
    assert "Fastest float of the original at batch 64: openvino bf16, 13.1 ms" in text
    assert "median at batch 1, 2 threads" in text
    assert "● Deployed: openvino int8" in text
    assert "Note: int8 was kept off conv stem.0: float is faster there" in text
    assert re.search(r"● openvino int8 64 2 4\.61 ms 4\.98 ms 26\.2× 2\.84× 21\.0×", text)


@pytest.mark.parametrize("kind", ["sample", "hostile", "long", "chinese"])
def test_fits_in_100_columns(content: dict[str, Any], kind: str) -> None:
    content = hostile() if kind == "hostile" else content
    for row in content["rows"]:
        if kind in ("long", "chinese"):
            row["step"] = {"long": "distill_with_a_very_long_name_" * 3, "chinese": "知识蒸馏" * 12}[kind]
            row["seconds"] = 5.2e5
            row["runtime"] = "a_runtime_with_a_long_name_of_its_own"
            row["precision"] = "float8_e4m3fn_with_scales"
    text = Report.from_json(content).table()
    assert max(cell_len(line) for line in text.splitlines()) <= table.WIDTH
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_markup_of_rich_is_inert(content: dict[str, Any]) -> None:
    content["rows"][1]["step"] = "[red]x[/red]"
    assert "[red]x[/red]" in Report.from_json(content).table()


def test_prints_itself(report: Report) -> None:
    assert str(report) == report.table()
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(report)
    assert "quantize" in captured.get()
    assert "\x1b[1m" in captured.get(), "in colour on a terminal"


def test_many_notes_are_counted(content: dict[str, Any]) -> None:
    content["notes"] = [f"not prunable: layer{i}" for i in range(20)]
    text = Report.from_json(content).table()
    assert text.count("Note: not prunable") == table.NOTES
    assert "14 more notes" in text


@pytest.mark.parametrize("method", ["table", "to_markdown", "to_html"])
def test_one_bare_row(method: str) -> None:
    text = getattr(Report.from_json({"rows": [{"step": "original"}]}), method)()
    assert "original" in text
    assert format.UNKNOWN in text or "not measured" in text
    assert "None" not in text


@pytest.mark.parametrize("method", ["table", "to_markdown", "to_html"])
def test_missing_latencies(content: dict[str, Any], method: str) -> None:
    for row in content["rows"]:
        for key in (
            "latencies",
            "latency_ms",
            "latency_p90_ms",
            "runtime",
            "precision",
            "batch",
            "memory_mb",
        ):
            del row[key]
    text = getattr(Report.from_json(content), method)()
    assert "92.76%" in text
    assert "None" not in text
    assert "Latency of every runtime" not in text


def test_markdown_tables_are_whole(content: dict[str, Any]) -> None:
    for report in (Report.from_json(content), Report.from_json(hostile())):
        counts = []
        outside = re.sub(r"(?ms)^(`{3,})yaml$.*?^\1$", "", report.to_markdown())
        for block in outside.split("\n\n"):
            lines = block.splitlines()
            if lines and lines[0].startswith("| "):
                counts.append({len(re.findall(r"(?<!\\)\|", line)) for line in lines})
        assert len(counts) == 4
        assert all(len(found) == 1 for found in counts)


def test_markdown_of_hostile_text_is_inert() -> None:
    text = Report.from_json(hostile()).to_markdown()
    outside = re.sub(r"(?ms)^(`{3,})yaml$.*?^\1$", "", text)
    assert "<script" not in outside
    assert "](" not in outside.replace("\\](", "")
    assert not re.search(r"(?m)^# head", outside)
    assert "\x1b" not in text


def test_recipe_in_markdown_reads_back(content: dict[str, Any]) -> None:
    text = Report.from_json(content).to_markdown()
    found = re.search(r"(?ms)^```yaml\n(.*?)^```$", text)
    assert found is not None
    assert yaml.safe_load(found[1]) == content["recipe"]


def test_correlations_are_not_percent(content: dict[str, Any]) -> None:
    for row in content["rows"]:
        row["metric"] = "matthews"
    text = Report.from_json(content).table()
    assert "0.928" in text
    assert "%" not in text
