"""Curves of a sensitivity as one self-contained SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT, TOP, PLOT, LINE = 820, 64, 240, 28, 360, 15


def draw(base: float, ratios: Sequence[float], values: Mapping[str, Sequence[float]]) -> str:
    """The metric (y) against the share removed (x): one line a group, named at the right, steepest first.

    >>> draw(0.9, (0.5,), {"conv1": (0.4,)}).count("<polyline")
    1
    """
    numbers = [base, *(value for row in values.values() for value in row)]
    low, high = min(numbers), max(numbers)
    span = (high - low) or max(abs(high), 1.0) * 0.1
    low, high = low - 0.04 * span, high + 0.04 * span
    right, furthest = WIDTH - RIGHT, max(ratios)

    def place(ratio: float, value: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * ratio / furthest, TOP + PLOT * (high - value) / (high - low)

    height = max(TOP + PLOT + 48, TOP + LINE * len(values) + 20)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11" role="img">',
        "<title>Metric against the share of channels removed</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for step in range(6):
        value = low + (high - low) * step / 5
        y = place(0, value)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for ratio in (0.0, *ratios):
        x = place(ratio, low)[0]
        parts.append(f'<text x="{x:.1f}" y="{TOP + PLOT + 18}" text-anchor="middle">{ratio:.0%}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{TOP + PLOT + 38}" text-anchor="middle">channels removed</text>')
    ordered = sorted(values, key=lambda name: list(values[name]))
    for index, name in enumerate(ordered):
        colour = f"hsl({(index * 137.508) % 360:.0f} 65% 42%)"
        spots = [place(0.0, base), *(place(*pair) for pair in zip(ratios, values[name], strict=True))]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        label, shown = escape(name), ", ".join(f"{value:.4g}" for value in values[name])
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6">'
            f"<title>{label}: {shown}</title></polyline>"
        )
        y = TOP + LINE * index + 4
        parts.append(f'<path d="M{right + 14} {y - 4}h14" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{right + 34}" y="{y}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
