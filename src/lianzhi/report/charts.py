"""Scatter charts as inline SVG: drawn here, coloured by the page's style sheet, readable without scripts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lianzhi.report.axes import Axis, linear_axis, x_axis
from lianzhi.report.format import clean
from lianzhi.report.markup import Markup, element, join

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 16, 36


@dataclass(frozen=True)
class Point:
    """A point of a chart; `kind` is its look: a class of the style sheet, and a shape of `Looks`."""

    label: str
    x: float
    y: float
    kind: str


Looks = Mapping[str, tuple[str, float]]  # the shape of a kind, and half of its width in pixels
# in the order in which their names are placed
LOOKS: Looks = {
    "final": ("circle", 7.5),
    "original": ("square", 5.5),
    "step": ("circle", 5),
    "runtime": ("circle", 4),
}


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front, from left to right: the points that no other one beats at both, smaller x and larger y.

    >>> names = "abcd"
    >>> found = [Point(name, x, y, "") for name, x, y in zip(names, (1, 2, 3, 3), (0.8, 0.7, 0.9, 0.95))]
    >>> [point.label for point in front(found)]
    ['a', 'd']
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


@dataclass(frozen=True)
class Frame:
    """The size of a picture in pixels, and the scales inside its margins."""

    horizontal: Axis
    vertical: Axis
    width: float = WIDTH
    height: float = HEIGHT

    def at(self, point: Point) -> tuple[float, float]:
        """Where a point lies."""
        x = LEFT + self.horizontal.place(point.x) * (self.width - LEFT - RIGHT)
        return x, self.height - BOTTOM - self.vertical.place(point.y) * (self.height - TOP - BOTTOM)


def scatter(
    points: list[Point],
    *,
    name: str,
    write_x: Callable[[float], str],
    write_y: Callable[[float], str],
    write_tick: Callable[[float], str],
    least: float,
    chain: bool = True,
    named: Callable[[Point], bool] = lambda point: True,
) -> Markup:
    """Return a chart of points, and the Pareto front; with `chain` the steps are joined by a line in their order.

    `name` is the id of the element that titles the chart; `least` the smallest span of the y axis, so
    that noise does not look like a cliff.
    """
    frame = framed(points, least=least)
    line: Markup | str = ""
    if chain:
        path = [frame.at(point) for point in points if point.kind != "runtime"]
        line = element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in path), class_="path")
    inside = drawn(
        points, frame, write_x=write_x, write_y=write_y, write_tick=write_tick, between=line, named=named
    )
    return element(
        "svg",
        *inside,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=name,
        class_="scatter",
    )


def framed(points: Sequence[Point], *, least: float, width: float = WIDTH, height: float = HEIGHT) -> Frame:
    """Return the frame that holds all the points."""
    vertical = linear_axis([point.y for point in points], least=least)
    return Frame(x_axis([point.x for point in points]), vertical, width, height)


def drawn(
    points: Sequence[Point],
    frame: Frame,
    *,
    write_x: Callable[[float], str],
    write_y: Callable[[float], str],
    write_tick: Callable[[float], str],
    between: Markup | str = "",
    looks: Looks = LOOKS,
    named: Callable[[Point], bool] = lambda point: True,
    longest: int = 24,
) -> list[Markup]:
    """Return what a chart is made of: its grid, `between`, the front, a mark a point, and the names of those `named`.

    A name of more than `longest` characters is cut.
    """
    spots = [frame.at(point) for point in points]
    marks = [
        element(
            "g",
            element("title", f"{point.label}: {write_x(point.x)}, {write_y(point.y)}"),
            mark(*looks[point.kind], *spot, kind=point.kind),
        )
        for spot, point in zip(spots, points, strict=True)
    ]
    best = front(points)
    return [
        _grid(frame, write_x, write_tick),
        join(between),
        _stairs(best, frame),
        *marks,
        *_labels([point for point in points if named(point)], spots, frame, looks, longest),
    ]


def _stairs(best: Sequence[Point], frame: Frame) -> Markup:
    """The front as stairs: how good one gets for so much, from the first point to the right edge."""
    corners: list[tuple[float, float]] = []
    for x, y in (frame.at(point) for point in best):
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    corners.append((frame.width - RIGHT, corners[-1][1]))
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), class_="front")


def _grid(frame: Frame, write_x: Callable[[float], str], write_tick: Callable[[float], str]) -> Markup:
    parts = []
    width, base = frame.width, frame.height - BOTTOM
    for tick in frame.vertical.ticks:
        y = f"{base - frame.vertical.place(tick) * (base - TOP):.1f}"
        parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", write_tick(tick), x=LEFT - 8, y=y, dy="0.35em", class_="tick end"))
    last = -math.inf
    for tick in frame.horizontal.ticks:
        x = LEFT + frame.horizontal.place(tick) * (width - LEFT - RIGHT)
        written = trim(write_x(tick))
        if x - text_width(written) / 2 < last + 6:
            continue
        last = x + text_width(written) / 2
        parts.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=base, y2=base + 4, class_="axis"))
        inside = min(x, width - text_width(written) / 2)  # the last one ends where the picture does
        parts.append(element("text", written, x=f"{inside:.1f}", y=base + 19, class_="tick middle"))
    parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=base, y2=base, class_="axis"))
    return join(*parts)


def mark(shape: str, half: float, x: float, y: float, *, kind: str) -> Markup:
    """Return a square, circle, diamond or triangle around a place."""
    name = f"mark {kind}"
    if shape == "square":
        return element(
            "rect",
            x=f"{x - half:.1f}",
            y=f"{y - half:.1f}",
            width=f"{2 * half:g}",
            height=f"{2 * half:g}",
            rx=2,
            class_=name,
        )
    if shape == "circle":
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{half:g}", class_=name)
    corners = {
        "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
        "triangle": ((0, -1), (0.95, 0.75), (-0.95, 0.75)),
    }[shape]
    places = " ".join(f"{x + half * right:.1f},{y + half * down:.1f}" for right, down in corners)
    return element("polygon", points=places, class_=name)


def _labels(
    points: Sequence[Point],
    spots: Sequence[tuple[float, float]],
    frame: Frame,
    looks: Looks,
    longest: int,
) -> list[Markup]:
    """Place each name beside its point where it covers no mark of `spots` and no other name.

    The front comes first, then kinds as `looks` has them. A name that finds no room is left to the chart's table.
    """
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    labels = []
    best, kinds = front(points), list(looks)
    for point in sorted(points, key=lambda point: (point not in best, kinds.index(point.kind))):
        label = shorten(point.label, longest)
        x, y = frame.at(point)
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
            inside = left >= LEFT and left + width <= frame.width - 2
            inside = inside and top >= 2 and top + 14 <= frame.height - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                start = {"start": left, "middle": left + width / 2, "end": left + width}[anchor]
                kind = f"label {anchor} {point.kind}"
                labels.append(element("text", label, x=f"{start:.1f}", y=f"{top + 11:.1f}", class_=kind))
                break
    return labels


def trim(written: str) -> str:
    """Drop the zeros that a tick does not need.

    >>> trim("1.00 MB"), trim("0.500 ms"), trim("100 ms"), trim("2.00×")
    ('1 MB', '0.5 ms', '100 ms', '2×')
    """
    return re.sub(r"\.(?!\d)", "", re.sub(r"(\.\d*?)0+(?!\d)", r"\1", written))


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
