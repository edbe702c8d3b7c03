"""The HTML page as text: well formed, self-contained, inert."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample import HOSTILE, hostile, others

from lianzhi.report import Report, Run, axes, charts, page_of_runs, words
from lianzhi.report.markup import escape

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects the page's elements and what is wrong with their nesting."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        self.errors += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len({name for name, _ in attrs}) != len(attrs):
            self.errors.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()} closes something else")

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


BARE = {"rows": [{"step": "original"}]}


@pytest.fixture(params=["sample", "mild", "hostile", "bare", "runs", "hostile runs"])
def page(request: pytest.FixtureRequest, content: dict[str, Any]) -> str:
    runs = {"half": content, **others()}
    if request.param == "runs":
        return page_of_runs([Run(name, Report.from_json(run)) for name, run in runs.items()])
    if request.param == "hostile runs":
        return page_of_runs([Run(HOSTILE, Report.from_json(hostile())), Run("bare", Report.from_json(BARE))])
    made = {"sample": lambda: content, "mild": lambda: runs["mild"], "hostile": hostile, "bare": lambda: BARE}
    return Report.from_json(made[request.param]()).to_html()


def test_well_formed(page: str) -> None:
    assert Checker(page).errors == []


def test_self_contained(page: str) -> None:
    found = Checker(page)
    assert not re.search(r"https?://", re.sub(r"(?s)<(pre|dd).*?</\1>", "", page))
    for _, attributes in found.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:,"))
    style = re.search(r"(?s)<style>(.*?)</style>", page)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_only_its_own_script_runs(page: str) -> None:
    found = Checker(page)
    assert len(found.of("script")) == 1
    script = re.search(r"(?s)<script>(.*?)</script>", page)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(
        meta["content"] for meta in found.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)


def test_hostile_text_is_shown_as_text() -> None:
    page = Report.from_json(hostile()).to_html()
    shown = "".join(data for _, data in Checker(page).texts)
    assert shown.count("</script><script>alert(1)</script>") > 20
    assert "{{main}}" in shown
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert HOSTILE not in page


def test_for_screen_readers(page: str) -> None:
    found = Checker(page)
    ids = [attributes["id"] for _, attributes in found.elements if attributes.get("id")]
    assert len(ids) == len(set(ids)), "every id once"
    for _, attributes in found.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
    assert len(found.of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), "no level is skipped"
    assert all(svg.get("aria-labelledby") or svg.get("aria-hidden") for svg in found.of("svg"))
    assert all(table.get("aria-labelledby") for table in found.of("table"))
    assert all(head.get("scope") for head in found.of("th"))


def test_sections(report: Report) -> None:
    found = Checker(report.to_html())
    names = [attributes.get("id") for attributes in found.of("section")]
    assert names == [
        "summary",
        "steps",
        "tradeoffs",
        "latencies",
        "layers",
        "timeline",
        "decision",
        "recipe",
        "environment",
        "reading",
    ]


def test_headline(report: Report) -> None:
    text = re.sub(r"<[^>]*>", " ", report.to_html())
    text = " ".join(text.split())
    for words_of_headline in (
        "−0.36 points",
        "10.7× smaller",
        "11.0× faster",
        "2.60× less",
        "2.69× against the fastest float: openvino bf16, 0.420 ms",
        "26.2× at batch 64",
        "top-1 on test, 10,000 samples",
    ):
        assert words_of_headline in text


def test_a_worse_result_is_called_worse(content: dict[str, Any]) -> None:
    content["rows"] = [content["rows"][-1], content["rows"][0]]
    content["rows"][0]["latency_ms"] = content["rows"][0]["latencies"][0]["median_ms"]
    content["rows"][0] |= {"runtime": "pytorch", "precision": "f32", "latency_ms": 1.3}
    text = re.sub(r"<[^>]*>", " ", Report.from_json(content).to_html())
    assert "10.7× larger" in text
    assert "1.32× slower" in text
    assert "+0.36 points" in text


def test_both_languages_everywhere() -> None:
    for key, (english, chinese) in words.WORDS.items():
        names = re.findall(r"{(\w+)}", english)
        assert sorted(names) == sorted(re.findall(r"{(\w+)}", chinese)), key
        assert english
        assert chinese


def test_every_word_is_used() -> None:
    files = Path(words.__file__).parent.glob("*.py")
    sources = "".join(path.read_text("utf-8") for path in files if path.name != "words.py")
    kinds = {f"legend_{kind}" for kind in ("original", "step", "final", "runtime", "front")}
    made = kinds | {"recipes_lead", "environments_lead"}
    assert [key for key in words.WORDS if f'"{key}"' not in sources and key not in made] == []


def test_many_layers_fold(content: dict[str, Any]) -> None:
    content["layers"] = [{"name": f"layer{i}", "before": 64, "after": 32} for i in range(110)]
    page = Report.from_json(content).to_html()
    assert "70 more layers" in page
    assert page.count(">layer") == 110


def test_same_report_same_page(report: Report) -> None:
    assert report.to_html() == Report.from_json(report.to_dict()).to_html()


def test_chart_keeps_every_mark_inside() -> None:
    points = [
        charts.Point(f"p{i}", x, y, "step") for i, (x, y) in enumerate([(0.01, 0.1), (1e6, 0.1), (3.0, 0.9)])
    ]
    drawn = charts.scatter(points, name="x", write_x=str, write_y=str, write_tick=str, least=0.01)
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn):
        assert charts.LEFT <= float(x) <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= float(y) <= charts.HEIGHT - charts.BOTTOM
    assert drawn.count("<circle") == 3


@pytest.mark.parametrize("values", [[0.5], [0.0], [0.9, 0.9], [-1.0, 1.0], [1e-9, 1e9], [0.0, 5.0]])
def test_axes_hold_their_values(values: list[float]) -> None:
    for axis in (axes.linear_axis(values, least=0.01), axes.x_axis([abs(value) for value in values])):
        shown = values if axis.low < 0 or not axis.log else [abs(value) for value in values]
        assert len(axis.ticks) >= 2
        if not axis.log:
            continue
        assert all(0 <= axis.place(value) <= 1 for value in shown)


def test_escape_leaves_no_markup() -> None:
    assert not re.search(r"[<>\"']", escape("<a href='x' title=\"y\">"))


def test_ticks_are_written_inside_the_picture() -> None:
    points = [charts.Point(f"p{x}", x, y, "step") for x, y in ((70.0, 0.8), (100.0, 0.9))]
    drawn = str(
        charts.scatter(
            points, name="x", write_x=lambda x: f"{x:.0f} megabytes", write_y=str, write_tick=str, least=0.01
        )
    )
    written = re.findall(r'<text x="([\d.]+)"[^>]*tick middle[^>]*>([^<]+)<', drawn)
    assert written[-1][1] == "150 megabytes"
    for x, text in written:
        assert float(x) + charts.text_width(text) / 2 <= charts.WIDTH + 0.1


@pytest.mark.parametrize(("count", "said"), [(1, "1 thread"), (2, "2 threads")])
def test_one_thread_is_one(content: dict[str, Any], count: int, said: str) -> None:
    for row in content["rows"]:
        for entry in row["latencies"]:
            entry["threads"] = count
    found = set(re.findall(r"\d+ threads?", Report.from_json(content).to_html()))
    assert found == {said}


def test_front_is_what_no_other_point_beats() -> None:
    generator = random.Random(0)
    for _ in range(50):
        points = [
            charts.Point(f"p{i}", generator.randrange(1, 9), generator.randrange(9) / 10, "step")
            for i in range(generator.randrange(1, 12))
        ]
        best = charts.front(points)

        def beaten(point: charts.Point, by: charts.Point) -> bool:
            return by.x <= point.x and by.y >= point.y and (by.x, by.y) != (point.x, point.y)

        alone = {(p.x, p.y) for p in points if not any(beaten(p, other) for other in points)}
        assert [(p.x, p.y) for p in best] == sorted(alone)


def test_front_is_drawn_as_stairs_through_its_points() -> None:
    points = [
        charts.Point(name, x, y, kind)
        for name, x, y, kind in (
            ("small", 10.0, 0.80, "final"),
            ("beaten", 60.0, 0.79, "step"),
            ("large", 100.0, 0.90, "original"),
        )
    ]
    drawn = charts.scatter(points, name="x", write_x=str, write_y=str, write_tick=str, least=0.01)
    (line,) = re.findall(r'<polyline points="([^"]*)" class="front">', drawn)
    frame = charts.framed(points, least=0.01)
    (left, low), (right, high) = frame.at(points[0]), frame.at(points[2])
    corners = [
        (left, low),
        (right, low),
        (right, high),
        (charts.WIDTH - charts.RIGHT, high),
    ]
    assert line == " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
