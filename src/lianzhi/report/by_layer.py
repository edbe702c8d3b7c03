"""The page's tables of layers: of one run a column a quantity, of several runs a table a quantity and a column a run."""

from __future__ import annotations

from collections.abc import Sequence

from lianzhi.report.data import Report
from lianzhi.report.format import UNKNOWN
from lianzhi.report.layers import QUANTITIES, Quantity, Values
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import folded, section, stacked
from lianzhi.report.runs import Run

UNFOLDED = 24  # layers of a table that is open when the page is


def of_one(report: Report) -> Markup:
    """Return the section of one run: channels alone have their bars elsewhere."""
    found = [(quantity, quantity.find(report)) for quantity in QUANTITIES]
    found = [(quantity, values) for quantity, values in found if values]
    if not any(quantity.key != "channels" for quantity, _ in found):
        return Markup("")
    heads = [say(quantity.key) for quantity, _ in found]
    table = _table(heads, found, label="h-by_layer", open_=True)
    return section("by_layer", table, lead=say("by_layer_lead"))


def of_runs(runs: Sequence[Run]) -> Markup:
    """Return the section of several runs; the first table is open."""
    parts: list[Markup] = []
    for quantity in QUANTITIES:
        found = [(run, quantity.find(run.report)) for run in runs]
        columns = [(quantity, values) for _, values in found if values]
        if columns:
            label = f"h-layers-{quantity.key}"
            heads = [escape(run.name) for run, values in found if values]
            table = _table(heads, columns, label=label, open_=not parts)
            parts.append(join(element("h3", say(quantity.key), id=label), table))
    return section("by_layer", *parts, lead=say("by_layer_lead")) if parts else Markup("")


def _table(
    heads: Sequence[Markup], columns: Sequence[tuple[Quantity, Values]], *, label: str, open_: bool
) -> Markup:
    names = list(dict.fromkeys(name for _, values in columns for name in values))
    longest = [
        max((max(now, was or 0.0) for now, was in values.values()), default=0.0) for _, values in columns
    ]
    body, keys = [], []
    for name in names:
        cells = [
            _cell(quantity, values.get(name), most)
            for (quantity, values), most in zip(columns, longest, strict=True)
        ]
        body.append((name, cells, None))
        keys.append([name, *(values[name][0] if name in values else None for _, values in columns)])
    table = stacked([say("layer"), *heads], body, label=label, keys=keys)
    table = element("div", table, class_="compact")
    return folded(table, say("all_layers_of", count=len(names)), when=not open_ or len(names) > UNFOLDED)


def _cell(quantity: Quantity, values: tuple[float, float | None] | None, most: float) -> Markup:
    """A value, what it was, and a bar of both; `most` is the longest bar of the column."""
    if values is None:
        return escape(UNKNOWN)
    now, was = values
    bars: list[Markup] = []
    if most > 0:
        width = f"width:{100 * max(now, 0.0) / most:.1f}%"
        bars = [element("span", element("i", class_="is", style=width), class_="bar", aria_hidden="true")]
    small = element("small", " ", say("of", was=quantity.write(was))) if was is not None else ""
    return join(quantity.write(now), small, *bars)
