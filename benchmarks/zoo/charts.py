"""The charts of the page as SVG files: every entry of a board, accuracy against size and against time, and the front.

Drawn by the report's own code; a file of its own brings its style with it, light and dark, and a legend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lianzhi.report import charts, format
from lianzhi.report.axes import x_axis
from lianzhi.report.charts import Point
from lianzhi.report.markup import Markup, element, join
from zoo.boards import Board
from zoo.table import Entry
from zoo.text import Cell, Text, written

WIDTH, HEIGHT, ROW, HEAD = 620, 380, 22, 18
LEAST = 0.01  # of accuracy: the smallest span of the axis
Look = tuple[str, float, str, str, Text]
KINDS: dict[str, Look] = {  # shape, half width, colour on light and on dark, words
    "composed": ("circle", 7.5, "#c2410c", "#fb923c", Text("composed recipe", "组合配方")),
    "float": ("square", 5.5, "#57534e", "#d6d3d1", Text("float", "浮点")),
    "distilled": ("triangle", 6.5, "#15803d", "#4ade80", Text("distilled", "蒸馏")),
    "pruned": ("diamond", 6.5, "#7e22ce", "#d8b4fe", Text("pruned", "剪枝")),
    "packed": ("square", 5, "#be123c", "#fb7185", Text("Deep Compression", "Deep Compression")),
    "int8": ("circle", 5, "#1d4ed8", "#60a5fa", Text("int8", "int8")),
    "low": ("diamond", 5.5, "#0e7490", "#22d3ee", Text("4-bit weights", "4 位权重")),
    "peer": ("circle", 4.5, "#8c857b", "#a8a29e", Text("peers, in the same run", "同一次运行中的其他工具")),
}
LOOKS: charts.Looks = {kind: (shape, half) for kind, (shape, half, *_) in KINDS.items()}
FRONT = Text("Pareto front", "帕累托前沿")
ACCURACY = Text("accuracy", "准确率")
SIZE = Text("file size", "文件大小")
LOG = Text("logarithmic", "对数刻度")


def _style() -> Markup:
    """The style sheet of a file: text and grid, a colour a kind, and the same on dark."""
    light, dark = [], []
    for kind, (_, _, on_light, on_dark, _) in KINDS.items():
        hollow = "fill: var(--panel); stroke" if kind == "peer" else "stroke: var(--panel); fill"
        light.append(f".{kind} {{ {hollow}: {on_light} }}")
        dark.append(f".{kind} {{ {hollow}: {on_dark} }}")
    return Markup(
        "<style>"
        "svg { --panel: #fff; --ink: #1d1a16; --muted: #6a6359; --grid: #e9e4db; --line: #b3aca1; --is: #c2410c; "
        'font: 12px system-ui, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Noto Sans CJK SC", sans-serif }'
        ".panel { fill: var(--panel) } text { fill: var(--ink) } .tick, .title { fill: var(--muted) }"
        ".end { text-anchor: end } .middle { text-anchor: middle }"
        ".grid { stroke: var(--grid) } .axis { stroke: var(--line) }"
        ".front { fill: none; stroke: var(--is); stroke-width: 1.5; opacity: .6 }"
        ".mark { stroke-width: 1.5 } text.label { fill: var(--ink); stroke: var(--panel); stroke-width: 4px;"
        " stroke-linejoin: round; paint-order: stroke }"
        + " ".join(light)
        + "@media (prefers-color-scheme: dark) {"
        "svg { --panel: #1e1b18; --ink: #f2ede6; --muted: #a89f93; --grid: #37312a; --line: #756d63; --is: #fb923c }"
        + " ".join(dark)
        + "}</style>"
    )


def files(board: Board, entries: Sequence[Entry], language: str) -> dict[str, str]:
    """The charts that a board's entries give, by the name of their file; none where fewer than two could be placed."""
    found = {}
    for which, (points, write, title) in of(board, entries).items():
        if len(points) > 1:
            suffix = ".zh.svg" if language == "zh" else ".svg"
            found[f"zoo-{board.name}-{which}{suffix}"] = drawing(points, write, title, language)
    return found


def of(board: Board, entries: Sequence[Entry]) -> dict[str, tuple[list[Point], Callable[[float], str], Text]]:
    """The points of both charts, how their x is written, and what it is."""
    sizes = [Point(one.label, one.bytes, one.accuracy, one.kind) for one in entries if one.bytes]
    times = [Point(one.label, one.time, one.accuracy, one.kind) for one in entries if one.time]
    return {"size": (sizes, format.size, SIZE), "time": (times, board.write_time, board.time)}


def drawing(points: list[Point], write_x: Callable[[float], str], title: Text, language: str) -> str:
    """One chart as a file."""
    points = sorted(
        points, key=lambda point: -list(KINDS).index(point.kind)
    )  # what matters most is drawn last
    frame = charts.framed(points, least=LEAST, width=WIDTH, height=HEIGHT)
    best = charts.front(points)
    below = written(title, language)
    if x_axis([point.x for point in points]).log:
        below += f", {written(LOG, language)}" if language == "en" else f",{written(LOG, language)}"
    inside = charts.drawn(
        points,
        frame,
        write_x=write_x,
        write_y=format.metric_value,
        write_tick=lambda value: f"{100 * value:g}%",
        looks=LOOKS,
        named=lambda point: point in best or point.kind in ("float", "composed"),
        longest=48,
    )
    legend, rows = _legend([kind for kind in KINDS if any(point.kind == kind for point in points)], language)
    height = HEAD + HEIGHT + 12 + ROW * rows
    picture = element(
        "svg",
        _style(),
        element("rect", y=-HEAD, width=WIDTH, height=height, rx=8, class_="panel"),
        element("text", written(ACCURACY, language), x=8, y=-2, class_="title"),
        element("text", below, x=WIDTH - 10, y=HEIGHT - 2, class_="title end"),
        *inside,
        legend,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 {-HEAD} {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
    )
    return f"{picture}\n"


def _legend(kinds: list[str], language: str) -> tuple[Markup, int]:
    """The kinds that are drawn, and the front, in rows beneath the chart; and how many rows."""
    parts, x, row = [], 16.0, 0
    for kind in (*kinds, "front"):
        words = written(FRONT if kind == "front" else KINDS[kind][4], language)
        wide = 24 + charts.text_width(words) + 14
        if x + wide > WIDTH - 8:
            x, row = 16.0, row + 1
        y = HEIGHT + 16 + ROW * row
        shown = (
            element("polyline", points=f"{x - 6:.1f},{y:.1f} {x + 8:.1f},{y:.1f}", class_="front")
            if kind == "front"
            else charts.mark(*LOOKS[kind], x, y, kind=kind)
        )
        parts += [shown, element("text", words, x=f"{x + 14:.1f}", y=f"{y + 4:.1f}")]
        x += wide
    return join(*parts), row + 1


def printed(board: Board, entries: Sequence[Entry]) -> list[tuple[Text, list[tuple[Cell, ...]]]]:
    """The fronts as rows: the entry, its size or time, its accuracy."""
    found = []
    for points, write, title in of(board, entries).values():
        if len(points) > 1:
            rows = [
                (point.label, write(point.x), format.metric_value(point.y)) for point in charts.front(points)
            ]
            found.append((title, rows))
    return found
