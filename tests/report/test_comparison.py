"""Several runs on one page: what is compared, what is not, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import browser
import pytest
import sample
from test_browser import OVERFLOW

from lianzhi.report import Report, Run, layers, page_of_runs, remark_lines, runs


@pytest.fixture
def several() -> list[Run]:
    """Three runs of one model, the last one on another machine."""
    contents = {"half": sample.sample(), **sample.others()}
    return [Run(name, Report.from_json(content)) for name, content in contents.items()]


def section(page: str, name: str) -> str:
    """The text of a section, in English."""
    (found,) = re.findall(rf'(?s)<section[^>]* id="{name}">(.*?)</section>', page)
    found = re.sub(r'<span lang="zh">.*?</span>', "", found)
    return " ".join(re.sub(r"<[^>]*>", " ", found).split())


def test_sections(several: list[Run]) -> None:
    names = re.findall(r'<section[^>]* id="(\w+)"', page_of_runs(several))
    wanted = "shipped tradeoffs steps recipes by_layer environments recipe reading"
    assert names == wanted.split()


def test_the_best_of_a_column_is_bold(several: list[Run]) -> None:
    best = re.findall(r'<b class="best">(.*?)</b>', page_of_runs(several[:2]))
    assert best == ["998k", "1.04 MB", "84.3M", "93.04%"], "their latencies are the same"
    best = re.findall(r'<b class="best">(.*?)</b>', page_of_runs(several))
    assert "285 kB" in best
    assert not any("ms" in value for value in best), "they were measured on different machines"


def test_latencies_of_different_machines_have_charts_of_their_own(several: list[Run]) -> None:
    assert remark_lines(several[:2]) == []
    (line,) = remark_lines(several)
    assert "half, mild: Example Server CPU @ 2.00 GHz, 2 threads, batch 1" in line
    assert "shared: Another CPU @ 3.00 GHz, 2 threads, batch 1" in line
    assert page_of_runs(several).count("<svg viewBox") - 1 == 3
    assert page_of_runs(several[:2]).count("<svg viewBox") - 1 == 2


@pytest.mark.parametrize(
    ("key", "value"), [("task", {"name": "cifar10"}), ("metric", "f1"), ("split", "dev"), ("samples", 500)]
)
def test_other_questions_are_said_and_not_compared(key: str, value: Any) -> None:
    content = sample.others()["mild"]
    if key == "task":
        content["task"] = value
    for row in content["rows"]:
        row[key] = value
    pair = [Run("half", Report.from_json(sample.sample())), Run("other", Report.from_json(content))]
    (line,) = remark_lines(pair)
    assert line.startswith("These runs do not have the same task and metric")
    page = page_of_runs(pair)
    assert '<b class="best">' not in page
    assert page.count("<svg viewBox") - 1 == 4


def test_an_original_that_runs_share_is_one_point(several: list[Run]) -> None:
    page = page_of_runs(several[:2])
    (chart,) = re.findall(r'(?s)<svg[^>]*aria-labelledby="c-bytes-0".*?</svg>', page)
    assert chart.count('class="mark original"') == 1
    assert chart.count('class="mark final"') == 2
    assert chart.count('class="mark step"') == 4
    named = re.findall(r'class="label [^"]*">([^<]*)<', chart)
    assert sorted(named) == ["half", "mild", "resnet13 · original"]


def test_recipes_differ_in_what_both_have(several: list[Run]) -> None:
    found = runs.differences([runs.settings(run.report.recipe) for run in several])
    assert found.differing == [
        ("steps", ["sparsify → prune → distill → quantize", "prune → quantize", "pack"]),
        ("prune.ratio", ["0.5", "0.3", None]),
    ]
    assert found.shared["prune.criterion"] == "bn_scale"
    assert found.shared["seed"] == "0"
    assert "prune.ratio half 0.5 mild 0.3 shared –" in section(page_of_runs(several), "recipes")


def test_a_setting_that_one_run_lacks_is_a_difference() -> None:
    recipes = [{"steps": [{"prune": {"ratio": 0.5}}]}, {"steps": [{"prune": {"macs": 0.5}}]}]
    found = runs.differences([runs.settings(recipe) for recipe in recipes])
    assert found.differing == [("prune.ratio", ["0.5", None]), ("prune.macs", [None, "0.5"])]


def test_layers_have_every_quantity(several: list[Run]) -> None:
    found = {q.key: [len(q.find(run.report)) for run in several] for q in layers.QUANTITIES}
    assert found["channels"] == [13, 13, 0]
    assert found["macs"] == [0, 14, 0]
    assert found["packed_bytes"] == [0, 0, 13]
    assert found["weight_sqnr"] == found["output_sqnr"] == [0, 13, 0]
    text = section(page_of_runs(several), "by_layer")
    assert "stages.0.0.conv1 half 32 of 64 mild 48 of 64" in text
    assert "stages.0.0.conv1 shared 3.50 kB of 147 kB" in text
    alone = section(several[1].report.to_html(), "by_layer")
    assert (
        "stages.0.0.conv1 Channels 48 of 64 MACs 442k of 590k SQNR of weights 49.5 dB SQNR of outputs 39.8 dB"
        in alone
    )


def test_damaged_details_are_no_layers(content: dict[str, Any]) -> None:
    for damage in (
        [],
        {"openvino": []},
        {"openvino": {"layers": {}}},
        {"openvino": {"layers": [1, {"name": "a"}]}},
    ):
        content["rows"][-1]["details"] = {"quantization": damage}
        report = Report.from_json(content)
        assert all(not q.find(report) for q in layers.QUANTITIES if q.key != "channels")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_in_a_browser(address: str, tmp_path: Path, several: list[Run], width: int, dark: bool) -> None:
    file = tmp_path / "runs.html"
    file.write_text(page_of_runs(several), encoding="utf-8")
    page = browser.Page(address, width, 844, tmp_path / "profile", dark=dark)
    heads = "[...document.querySelectorAll('#shipped thead th')]"
    order = "return [...document.querySelectorAll('#shipped tbody th')].map((e) => e.firstChild.textContent)"
    try:
        page.open(file.as_uri())
        assert page.run(OVERFLOW) == [0, []]
        assert page.run(order) == ["half", "mild", "shared"]
        page.run(f"{heads}[3].querySelector('button').click()")
        assert page.run(order) == ["shared", "half", "mild"], "by size"
        page.run(f"{heads}[3].querySelector('button').click()")
        assert page.run(order) == ["mild", "half", "shared"]
        page.run(f"{heads}[0].querySelector('button').focus()")
        for kind in ("keyDown", "keyUp"):
            page.devtools(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                text="\r",
                windowsVirtualKeyCode=13,
            )
        assert page.run(order) == ["half", "mild", "shared"], "by name, by keyboard"
        assert page.run(f"return {heads}.map((e) => e.getAttribute('aria-sort'))")[:4] == [
            "ascending",
            None,
            None,
            None,
        ]
        least = "return Math.min(...[...document.querySelectorAll('.sorts button')].filter((e) => e.offsetHeight).map((e) => e.offsetHeight))"
        assert page.run(least) >= 24, "large enough for a finger"
        assert page.screenshot(tmp_path / "page.png").startswith(b"\x89PNG")
        assert page.console() == []
        page.devtools("Emulation.setEmulatedMedia", media="print", features=[])
        page.devtools(
            "Emulation.setDeviceMetricsOverride", width=690, height=980, deviceScaleFactor=1, mobile=False
        )
        page.run("dispatchEvent(new Event('beforeprint'))")
        cut = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert page.run(cut) == 0, "no table is cut off by the paper's edge"
        assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
    finally:
        page.close()


@pytest.mark.browser
def test_rows_without_a_number_stay_last(address: str, tmp_path: Path, content: dict[str, Any]) -> None:
    content["rows"][2]["bytes"] = None
    file = tmp_path / "report.html"
    file.write_text(Report.from_json(content).to_html(), encoding="utf-8")
    page = browser.Page(address, 1280, 844, tmp_path / "profile", dark=False)
    order = "return [...document.querySelectorAll('#steps tbody th')].map((e) => e.textContent)"
    try:
        page.open(file.as_uri())
        for wanted in (
            ["quantize", "distill", "original", "sparsify"],
            ["original", "sparsify", "distill", "quantize"],
        ):
            page.run("document.querySelectorAll('#steps thead th')[4].querySelector('button').click()")
            assert page.run(order) == [*wanted, "prune"]
    finally:
        page.close()
