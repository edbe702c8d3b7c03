"""The page in headless Chromium: phone and desktop, light and dark, both languages."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import browser
import pytest
from sample import hostile

from lianzhi.report import Report

pytestmark = pytest.mark.browser

OVERFLOW = """
  const wide = document.documentElement.scrollWidth - innerWidth;
  const out = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, pre, .skip, .visually-hidden, thead, svg"))
      .filter((e) => { const box = e.getBoundingClientRect(); return box.width && box.right > innerWidth + 0.5; })
  return [wide, out.map((e) => e.tagName + "." + e.className).slice(0, 5)];
"""


def opened(address: str, folder: Path, report: Report, *, width: int, dark: bool, query: str = "") -> Any:
    file = folder / "report.html"
    file.write_text(report.to_html(), encoding="utf-8")
    page = browser.Page(address, width, 844, folder / "profile", dark=dark)
    page.open(f"{file.as_uri()}{query}")
    return page


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_page_shows(address: str, tmp_path: Path, report: Report, width: int, dark: bool) -> None:
    page = opened(address, tmp_path, report, width=width, dark=dark)
    try:
        assert page.run("return innerWidth") == width
        assert page.run(OVERFLOW) == [0, []]
        assert page.run("return document.querySelectorAll('section h2').length") == 10
        assert page.run("return document.querySelector('.card .big').innerText") == "−0.36 points"
        background = page.run("return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 18, 16)" if dark else "rgb(247, 245, 241)")
        assert page.screenshot(tmp_path / "page.png").startswith(b"\x89PNG")
        assert (tmp_path / "page.png").stat().st_size > 50_000, "a picture of something"
        assert page.console() == []
    finally:
        page.close()


def test_buttons(address: str, tmp_path: Path, report: Report) -> None:
    page = opened(address, tmp_path, report, width=1280, dark=False, query="?lang=zh")
    try:
        heading = "return document.querySelector('#h-steps').innerText"
        assert page.run(heading) == "逐步结果"
        page.run("document.getElementById('language').click()")
        assert page.run(heading) == "Step by step"
        page.run("document.getElementById('theme').click()")
        assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 18, 16)"
        assert page.console() == []
    finally:
        page.close()


def test_text_can_be_read(address: str, tmp_path: Path, report: Report) -> None:
    """WCAG AA: every text has a contrast of 4.5 with what lies behind it."""
    script = """
      const bright = (rgb) => { const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
      const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length === 3 || c[3] > 0.99) return c.slice(0, 3); } return [255, 255, 255]; };
      const bad = [];
      for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.getClientRects().length) continue;
        const style = getComputedStyle(e);
        const ink = parse(e.closest("svg") ? style.fill : style.color).slice(0, 3);
        const [a, b] = [bright(ink), bright(behind(e))].sort((x, y) => y - x);
        if ((a + .05) / (b + .05) < 4.5) bad.push(e.tagName + "." + e.className.baseVal + e.className + " " + e.textContent.slice(0, 20));
      }
      return bad;
    """
    for theme in ("light", "dark"):
        page = opened(address, tmp_path, report, width=1280, dark=False, query=f"?theme={theme}")
        try:
            assert page.run(script) == []
        finally:
            page.close()


def test_hostile_report_does_nothing(address: str, tmp_path: Path) -> None:
    page = opened(address, tmp_path, Report.from_json(hostile()), width=390, dark=False)
    try:
        assert page.run("return document.scripts.length") == 1
        assert page.run(OVERFLOW) == [0, []]
        assert page.console() == []
    finally:
        page.close()


def test_reads_without_scripts(address: str, tmp_path: Path, report: Report) -> None:
    page = opened(address, tmp_path, report, width=1280, dark=False)
    try:
        page.devtools("Emulation.setScriptExecutionDisabled", value=True)
        page.open((tmp_path / "report.html").as_uri())
        text = page.devtools("DOM.getDocument", depth=1)
        assert text["root"]["nodeName"] == "#document"
        found = page.devtools("DOM.querySelector", nodeId=text["root"]["nodeId"], selector="#tools[hidden]")
        assert found["nodeId"], "buttons that need scripts stay hidden"
    finally:
        page.close()


def test_prints(address: str, tmp_path: Path, report: Report) -> None:
    page = opened(address, tmp_path, report, width=1280, dark=True)
    try:
        page.devtools("Emulation.setEmulatedMedia", media="print", features=[])
        page.devtools(
            "Emulation.setDeviceMetricsOverride", width=690, height=980, deviceScaleFactor=1, mobile=False
        )
        wide = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert page.run(wide) == 0, "no table is cut off by the paper's edge"
        pdf = base64.b64decode(page.devtools("Page.printToPDF", printBackground=True)["data"])
    finally:
        page.close()
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 12
