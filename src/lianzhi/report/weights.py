"""What Deep Compression did to each layer's weights: one table for the text, Markdown and the page, and plots of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lianzhi.report import format
from lianzhi.report.axes import linear_axis
from lianzhi.report.data import Report
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import section, stacked

FLOAT = 4  # bytes of a weight in float32
KEYS = (
    "weights",
    "kept",
    "bits",
    "entropy",
    "coded",
    "index_bits",
    "index_entropy",
    "index_coded",
    "bytes_shared",
    "bytes",
)
Cell = tuple[str, str]
NOTHING: Cell = (format.UNKNOWN, "")
SHOWN = 12  # plots that are open when the page is
WIDTH, HEIGHT, BASE, EDGE = 440, 150, 126, 18


@dataclass(frozen=True)
class Table:
    """A row a layer, by its name, and those of all layers and of the whole file, by their words: cells of a value and what
    stands below it.

    Cells: weights (below: their bytes as float32), kept, bits of a code (below: entropy/achieved), bits of an index (the
    same), bytes after each stage, those of the last without Huffman's code, and the ratio.
    """

    stages: list[str]
    layers: list[tuple[str, list[Cell]]]
    sums: list[tuple[str, list[Cell]]]


def table(report: Report) -> Table | None:
    """The table of all layers that some stage had, or None for a run without such steps.

    >>> layer = {"name": "fc", "weights": 100, "kept": 0.1, "bits": 4, "entropy": 3.2, "coded": 3.3, "index_bits": 5}
    >>> layer |= {"index_entropy": 4.1, "index_coded": 4.2, "bytes_shared": 25, "bytes": 20}
    >>> found = table(Report.from_json({"rows": [{"step": "pack", "details": {"stage": {"layers": [layer]}}}]}))
    >>> found.stages, [value for value, _ in found.layers[0][1]], found.layers[0][1][2]
    (['pack'], ['100', '10.0%', '4', '5', '20 B', '25 B', '20.0×'], ('4', '3.20/3.30'))
    """
    stages = [(row["step"], row["details"].get("stage")) for row in report.rows]
    found = [(step, stage, _layers(stage)) for step, stage in stages if _layers(stage)]
    if not found:
        return None
    last = found[-1][2]
    after = [layers for _, _, layers in found]
    sums = [("all_layers", _sums(last, after))] if len(last) > 1 else []
    if whole := _whole([stage for _, stage, _ in found]):
        sums.append(("whole_file", whole))
    return Table(
        [step for step, _, _ in found],
        [(name, _cells(name, layer, after)) for name, layer in last.items()],
        sums,
    )


def _cells(name: str, layer: Mapping[str, Any], stages: list[dict[str, dict[str, Any]]]) -> list[Cell]:
    floats = FLOAT * layer["weights"]
    bytes_ = [layers[name]["bytes"] if name in layers else None for layers in stages]
    return [
        (format.count(layer["weights"]), format.size(floats)),
        (f"{100 * layer['kept']:.1f}%", ""),
        (str(layer["bits"]), _achieved(layer["entropy"], layer["coded"])),
        (str(layer["index_bits"] or format.UNKNOWN), _achieved(layer["index_entropy"], layer["index_coded"])),
        *((format.size(size), "") for size in (*bytes_, layer["bytes_shared"])),
        (format.times(floats / layer["bytes"]) if layer["bytes"] else format.UNKNOWN, ""),
    ]


def _achieved(entropy: float, coded: float) -> str:
    return f"{entropy:.2f}/{coded:.2f}" if coded else ""


def _sums(last: dict[str, dict[str, Any]], stages: list[dict[str, dict[str, Any]]]) -> list[Cell]:
    weights = sum(layer["weights"] for layer in last.values())
    kept = sum(layer["kept"] * layer["weights"] for layer in last.values()) / max(1, weights)
    sums = [sum(layer["bytes"] for layer in layers.values()) for layers in stages]
    shared = sum(layer["bytes_shared"] for layer in last.values())
    return [
        (format.count(weights), format.size(FLOAT * weights)),
        (f"{100 * kept:.1f}%", ""),
        NOTHING,
        NOTHING,
        *((format.size(size), "") for size in (*sums, shared)),
        (format.times(FLOAT * weights / sums[-1]) if sums[-1] else format.UNKNOWN, ""),
    ]


def _whole(stages: list[Any]) -> list[Cell] | None:
    """The files, with all that is in them, against the float32 tensors that the first one holds."""
    sizes = [stage.get("bytes") for stage in stages]
    if not all(number(size) and size > 0 for size in sizes) or not number(stages[0].get("ratio")):
        return None
    floats = sizes[0] * stages[0]["ratio"]
    return [
        (format.UNKNOWN, format.size(floats)),
        NOTHING,
        NOTHING,
        NOTHING,
        *((format.size(size), "") for size in sizes),
        NOTHING,
        (format.times(floats / sizes[-1]), ""),
    ]


def packed_layers(report: Report) -> dict[str, dict[str, Any]]:
    """The layers by name as the last step says that has them in a packed file; none without such a step."""
    found = (_layers(row["details"].get("stage")) for row in reversed(report.rows))
    return next((layers for layers in found if layers), {})


def _layers(stage: Any) -> dict[str, dict[str, Any]]:
    """The layers of a stage by name; what is no such thing is left out."""
    found = stage.get("layers") if isinstance(stage, dict) else None
    return {
        str(layer["name"]): layer
        for layer in (found if isinstance(found, list) else [])
        if isinstance(layer, dict) and "name" in layer and all(number(layer.get(key)) for key in KEYS)
    }


def number(value: Any) -> bool:
    """Whether it is a finite number.

    >>> number(1.5), number(True), number("1")
    (True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def weights(report: Report) -> Markup:
    """The section of the page."""
    found = table(report)
    if found is None:
        return Markup("")
    heads = [say(key) for key in ("layer", "weights", "weights_kept", "bits", "index_bits")]
    heads += [say("after_step", step=step) for step in found.stages]
    heads += [say("without_huffman"), say("ratio")]
    body = [
        (
            name,
            [join(value, element("small", below)) if below else escape(value) for value, below in cells],
            kind,
        )
        for name, cells, kind in [
            *((name, cells, None) for name, cells in found.layers),
            *((say(word), cells, "final") for word, cells in found.sums),
        ]
    ]
    parts = [stacked(heads, body, label="h-weights")]
    figures = [_figure(entry, index) for index, entry in enumerate(_distributions(report))]
    if figures:
        parts.append(element("div", *figures[:SHOWN], class_="charts"))
    if len(figures) > SHOWN:
        summary = element("summary", say("more_layers", count=len(figures) - SHOWN))
        parts.append(element("details", summary, element("div", *figures[SHOWN:], class_="charts")))
    return section("weights_by_layer", *parts, lead=say("weights_lead"))


def _distributions(report: Report) -> list[dict[str, Any]]:
    """The last drawn values of each layer."""
    found: dict[str, dict[str, Any]] = {}
    for row in report.rows:
        entries = row["details"].get("distributions")
        for entry in entries if isinstance(entries, list) else []:
            if _drawable(entry):
                found[str(entry["name"])] = entry
    return list(found.values())


def _drawable(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    counts, values = entry.get("counts"), entry.get("values")
    pairs = isinstance(values, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(number, pair)) for pair in values
    )
    bins = isinstance(counts, list) and bool(counts) and all(number(count) and count >= 0 for count in counts)
    return bins and pairs and bool(values) and all(number(entry.get(key)) for key in ("low", "high"))


def _figure(entry: Mapping[str, Any], index: int) -> Markup:
    name = f"w-{index}"
    caption = element(
        "figcaption",
        element("h3", entry["name"], id=name),
        element("span", say("shared_values", count=len(entry["values"])), class_="fine"),
    )
    rows = [
        (
            format.significant(value) if value >= 0 else f"-{format.significant(-value)}",
            [escape(f"{count:,}")],
            None,
        )
        for value, count in entry["values"]
    ]
    shown = stacked([say("shared_value"), say("weights")], rows, label=name)
    return element(
        "figure",
        caption,
        drawing(entry, name),
        element("details", element("summary", say("as_table")), shown),
        class_="panel chart",
    )


def drawing(entry: Mapping[str, Any], name: str) -> Markup:
    """Bars of how many weights had which values, and a line for each value that they share; the line of many is bold."""
    counts, values = entry["counts"], [value for value, _ in entry["values"]]
    low, high = min(entry["low"], *values), max(entry["high"], *values)
    axis = linear_axis([low, high])
    room = WIDTH - 2 * EDGE

    def at(value: float) -> float:
        return EDGE + axis.place(value) * room

    step = (entry["high"] - entry["low"]) / len(counts)
    top, parts = max(1, *counts) if len(counts) > 1 else max(1, counts[0]), []
    for index, count in enumerate(counts):
        left, tall = at(entry["low"] + index * step), (BASE - 10) * count / top
        wide = max(0.5, step * room / (axis.high - axis.low))
        parts.append(
            element(
                "rect", x=f"{left:.2f}", y=f"{BASE - tall:.2f}", width=f"{wide:.2f}", height=f"{tall:.2f}"
            )
        )
    most = max(1, *(count for _, count in entry["values"])) if len(values) > 1 else 1
    for value, count in entry["values"]:
        x = f"{at(value):.2f}"
        line = element(
            "line",
            x1=x,
            x2=x,
            y1=BASE - 12,
            y2=BASE + 4,
            stroke_width=f"{1 + 2 * count / max(1, most):.2f}",
            class_="shared",
        )
        parts.append(element("g", element("title", f"{value:.4g}: {count:,}"), line))
    for tick in axis.ticks:
        parts.append(element("text", f"{tick:g}", x=f"{at(tick):.1f}", y=BASE + 18, class_="tick middle"))
    parts.append(element("line", x1=EDGE, x2=WIDTH - EDGE, y1=BASE, y2=BASE, class_="axis"))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=name,
        class_="scatter spread",
    )
