"""Scatter charts as inline SVG: drawn here, coloured by the page's style sheet, readable without scripts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from lianzhi.report.format import clean
from lianzhi.report.markup import Markup, element, join

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 16, 36
LOG_FROM = 4.0


@dataclass(frozen=True)
class Point:
    """A point of a chart; `kind` (original, step, final, runtime) is its look."""

    label: str
    x: float
    y: float
    kind: str


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels, with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0–1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: list[float], *, least: float = 0.0, zero: bool = False) -> Axis:
    """Return a scale with round ticks around the values, spanning `least` at the least.

    >>> linear_axis([87.1, 93.1]).ticks
    (86.0, 88.0, 90.0, 92.0, 94.0)
    """
    low, high = (0.0 if zero else min(values)), max(values)
    span = max(high - low, least, abs(high) * 1e-6, 1e-12)
    middle = (low + high) / 2
    if not zero:
        low, high = middle - span * 0.55, middle + span * 0.55
    else:
        high = low + span * 1.1
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return Axis(first * step, last * step, tuple(round(i * step, 10) for i in range(first, last + 1)))


def log_axis(values: list[float]) -> Axis:
    """Return a logarithmic scale with ticks at 1, 2 and 5.

    >>> log_axis([0.15, 1.7]).ticks
    (0.2, 0.5, 1.0, 2.0)
    """
    low, high = min(values) / 1.35, max(values) * 1.35
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = (round(step * 10.0**power, 12) for power in powers for step in steps)
    return Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high), log=True)


def x_axis(values: list[float]) -> Axis:
    """Return a scale from zero, or a logarithmic one where the values span more than fourfold.

    >>> x_axis([1.0, 3.0]).low, x_axis([1.0, 20.0]).log
    (0.0, True)
    """
    if min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        return log_axis(values)
    return linear_axis(values, zero=True)


def scatter(
    points: list[Point],
    *,
    name: str,
    write_x: Callable[[float], str],
    write_y: Callable[[float], str],
    write_tick: Callable[[float], str],
    least: float,
) -> Markup:
    """Return a chart of points, the steps joined by a line in their order.

    `name` is the id of the element that titles the chart; `least` the smallest span of the y axis, so
    that noise does not look like a cliff.
    """
    horizontal = x_axis([point.x for point in points])
    vertical = linear_axis([point.y for point in points], least=least)

    def at(point: Point) -> tuple[float, float]:
        x = LEFT + horizontal.place(point.x) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - vertical.place(point.y) * (HEIGHT - TOP - BOTTOM)

    spots = [at(point) for point in points]
    path = [spot for spot, point in zip(spots, points, strict=True) if point.kind != "runtime"]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
    marks = [
        element(
            "g",
            element("title", f"{point.label}: {write_x(point.x)}, {write_y(point.y)}"),
            _mark(point, *spot),
        )
        for spot, point in zip(spots, points, strict=True)
    ]
    return element(
        "svg",
        _grid(horizontal, vertical, write_x, write_tick),
        element("polyline", points=line, class_="path"),
        *marks,
        *_labels(points, spots),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=name,
        class_="scatter",
    )


def _grid(
    horizontal: Axis, vertical: Axis, write_x: Callable[[float], str], write_tick: Callable[[float], str]
) -> Markup:
    parts = []
    for tick in vertical.ticks:
        y = f"{HEIGHT - BOTTOM - vertical.place(tick) * (HEIGHT - TOP - BOTTOM):.1f}"
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", write_tick(tick), x=LEFT - 8, y=y, dy="0.35em", class_="tick end"))
    last = -math.inf
    for tick in horizontal.ticks:
        x = LEFT + horizontal.place(tick) * (WIDTH - LEFT - RIGHT)
        written = trim(write_x(tick))
        if x - text_width(written) / 2 < last + 6:
            continue
        last = x + text_width(written) / 2
        parts.append(
            element(
                "line",
                x1=f"{x:.1f}",
                x2=f"{x:.1f}",
                y1=HEIGHT - BOTTOM,
                y2=HEIGHT - BOTTOM + 4,
                class_="axis",
            )
        )
        inside = min(x, WIDTH - text_width(written) / 2)  # the last one ends where the picture does
        parts.append(
            element("text", written, x=f"{inside:.1f}", y=HEIGHT - BOTTOM + 19, class_="tick middle")
        )
    base = HEIGHT - BOTTOM
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    return join(*parts)


def _mark(point: Point, x: float, y: float) -> Markup:
    if point.kind == "original":
        return element(
            "rect", x=f"{x - 5.5:.1f}", y=f"{y - 5.5:.1f}", width=11, height=11, rx=2, class_="mark original"
        )
    radius = {"final": 7.5, "step": 5, "runtime": 4}[point.kind]
    return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, class_=f"mark {point.kind}")


def _labels(points: list[Point], spots: list[tuple[float, float]]) -> list[Markup]:
    """Place each name beside its point where it covers nothing; the result and the original come first.

    A name that finds no room is left to the chart's table.
    """
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    labels = []
    order = sorted(
        range(len(points)), key=lambda i: ("final", "original", "step", "runtime").index(points[i].kind)
    )
    for index in order:
        label = shorten(points[index].label)
        x, y = spots[index]
        width = text_width(label)
        for anchor, left, top in (
            ("start", x + 11, y - 7),
            ("end", x - 11 - width, y - 7),
            ("middle", x - width / 2, y - 25),
            ("middle", x - width / 2, y + 11),
            ("start", x + 9, y - 20),
            ("start", x + 9, y + 6),
            ("end", x - 9 - width, y - 20),
            ("end", x - 9 - width, y + 6),
        ):
            box = (left, top, left + width, top + 14)
            inside = left >= LEFT and left + width <= WIDTH - 2 and top >= 2 and top + 14 <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                start = {"start": left, "middle": left + width / 2, "end": left + width}[anchor]
                kind = f"label {anchor} {points[index].kind}"
                labels.append(element("text", label, x=f"{start:.1f}", y=f"{top + 11:.1f}", class_=kind))
                break
    return labels


def trim(written: str) -> str:
    """Drop the zeros that a tick does not need.

    >>> trim("1.00 MB"), trim("0.500 ms"), trim("100 ms")
    ('1 MB', '0.5 ms', '100 ms')
    """
    return re.sub(r"(\.\d*?)0+(?!\d)", r"\1", written).replace(". ", " ")


def shorten(label: str, limit: int = 24) -> str:
    """Cut a long name.

    >>> shorten("a" * 30, 5)
    'aaaa…'
    """
    label = " ".join(clean(label).split())
    return label if len(label) <= limit else label[: limit - 1] + "…"


def text_width(label: str) -> float:
    """Estimate a label's width at 12 pixels; Chinese characters are twice as wide."""
    return sum(12.5 if ord(character) > 0x2E80 else 6.9 for character in label)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _round_step(step: float) -> float:
    """Round up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= step * 0.999)
