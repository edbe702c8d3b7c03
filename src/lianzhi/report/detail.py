"""The page's rest: latencies, layers, timeline, recipe, environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lianzhi.report import compare, format, wording
from lianzhi.report.data import LatencyEntry, Report
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import section, stacked

LAYERS_SHOWN = 40


def latencies(report: Report) -> Markup:
    """Return every latency, a table of bars for each batch and number of threads."""
    found = compare.measured(report)
    groups: dict[tuple[int, int], list[compare.Measured]] = {}
    for item in found:
        if format.known(item.entry["median_ms"]):
            groups.setdefault((item.entry["batch"] or 1, item.entry["threads"] or 0), []).append(item)
    if not groups:
        return Markup("")
    floats = {(entry["batch"] or 1, entry["threads"] or 0): entry for entry in compare.fastest_floats(report)}
    panels = [_latency_panel(*key, groups[key], floats.get(key)) for key in sorted(groups)]
    legend = [element("li", say("original"), class_="original")]
    if any(not item.original for item in found):
        legend.append(element("li", say("compressed"), class_="final"))
    return section("latencies", element("ul", *legend, class_="legend"), *panels, lead=say("latencies_lead"))


def _latency_panel(
    batch: int, threads: int, items: list[compare.Measured], best: LatencyEntry | None
) -> Markup:
    using = say("threads", threads=threads) if threads > 1 else say("one_thread")
    title = say("batch_with_threads", batch=batch, threads=using) if threads else say("batch", batch=batch)
    name = f"b-{batch}-{threads}"
    longest = max(item.entry["median_ms"] or 0.0 for item in items) or 1.0
    quickest: dict[tuple[str, str | None], float] = {}
    for item in items:
        key = (item.entry["runtime"], item.entry["precision"])
        quickest[key] = min(quickest.get(key, float("inf")), item.entry["median_ms"] or 0.0)

    def order(item: compare.Measured) -> tuple[float, str, str, bool]:
        entry = item.entry
        return (
            quickest[entry["runtime"], entry["precision"]],
            entry["runtime"],
            entry["precision"] or "",
            not item.original,
        )

    heads = [
        say(key) for key in ("runtime", "median", "p90", "throughput", "vs_eager", "vs_float", "vs_same")
    ]
    rows = [_latency_row(item, batch, longest) for item in sorted(items, key=order)]
    caption: Markup | str = ""
    if best:
        runtime = format.runtime(best["runtime"], best["precision"])
        text = say("fastest_float", runtime=runtime, latency=format.milliseconds(best["median_ms"]))
        caption = element("p", text, class_="fine")
    return element(
        "div", element("h3", title, id=name), caption, stacked(heads, rows, label=name), class_="latency"
    )


def _latency_row(
    item: compare.Measured, batch: int, longest: float
) -> tuple[object, list[Markup], str | None]:
    entry = item.entry
    median = entry["median_ms"] or 0.0
    kind = "was" if item.original else "is"
    bar = element("i", class_=kind, style=f"width:{100 * median / longest:.2f}%")
    title = join(
        element("span", format.runtime(entry["runtime"], entry["precision"]), class_="engine"),
        element("span", item.step, class_="tag"),
        element("span", say("deployed"), class_="tag shipped") if item.deployed else "",
        element("span", bar, class_="bar", aria_hidden="true"),
    )
    speedups = (item.against_eager, item.against_float, item.against_same)
    cells = [
        format.milliseconds(entry["median_ms"]),
        format.milliseconds(entry["p90_ms"]),
        format.UNKNOWN if median == 0 else f"{format.significant(1000 * batch / median)}",
        *(format.times(value) for value in speedups),
    ]
    return title, [escape(cell) for cell in cells], "final" if item.deployed else None


def layers(report: Report) -> Markup:
    """Return the channels kept per layer, as bars."""
    found = [layer for layer in report.layers if layer.get("before") and layer.get("after") is not None]
    if not found:
        return Markup("")
    before, after = (sum(layer[key] for layer in found) for key in ("before", "after"))
    lead = say("layers_lead", before=f"{before:,}", after=f"{after:,}", share=f"{100 * after / before:.1f}%")
    widest = max(layer["before"] for layer in found)
    bars = [_layer_bar(layer, widest) for layer in found]
    parts: list[Markup] = [element("ul", *bars[:LAYERS_SHOWN], class_="layers panel")]
    if len(bars) > LAYERS_SHOWN:
        summary = element("summary", say("more_layers", count=len(bars) - LAYERS_SHOWN))
        parts.append(element("details", summary, element("ul", *bars[LAYERS_SHOWN:], class_="layers panel")))
    return section("layers", *parts, lead=lead)


def _layer_bar(layer: Mapping[str, Any], widest: int) -> Markup:
    before, after = layer["before"], layer["after"]
    outer, inner = 100 * before / widest, 100 * min(after / before, 1)
    track = element(
        "span",
        element("i", class_="is", style=f"width:{inner:.2f}%"),
        class_="track",
        style=f"width:{max(outer, 4):.2f}%",
        aria_hidden="true",
    )
    return element(
        "li",
        element("span", layer["name"], class_="name", title=layer["name"]),
        element("span", track, class_="room"),
        element(
            "span", f"{after} / {before}", element("small", f"{100 * after / before:.0f}%"), class_="kept"
        ),
    )


def timeline(report: Report) -> Markup:
    """Return where the time went: a bar a step, each beginning where the last one ended."""
    rows = [(row["step"], row["seconds"] or 0.0) for row in report.rows]
    total = sum(seconds for _, seconds in rows)
    if total <= 0:
        return Markup("")
    items, begun = [], 0.0
    for step, seconds in rows:
        if seconds > 0:
            left, width = 100 * begun / total, 100 * seconds / total
            bar = element(
                "i", class_="is", style=f"margin-left:{min(left, 99.4):.2f}%;width:{max(width, 0.6):.2f}%"
            )
            name = element("span", step, class_="name", title=step)
            time = element("span", format.seconds(seconds), element("small", f"{width:.0f}%"), class_="kept")
            items.append(
                element("li", name, element("span", bar, class_="room ruled", aria_hidden="true"), time)
            )
        begun += seconds
    lead = say("timeline_lead", total=format.seconds(total))
    return section("timeline", element("ol", *items, class_="layers panel timeline"), lead=lead)


def reproduce(report: Report) -> Markup:
    """Return the recipe, and what each step wrote about itself."""
    parts: list[Markup] = []
    if report.recipe:
        button = element(
            "button", say("copy"), type="button", class_="copy", data_copy="recipe-text", hidden=True
        )
        code = element(
            "pre",
            element("code", wording.to_yaml(report.recipe), id="recipe-text"),
            tabindex="0",
            aria_labelledby="h-recipe",
        )
        parts.append(element("div", button, code, class_="panel code"))
    told = [row for row in report.rows if row["details"]]
    for row in told:
        text = wording.to_yaml(row["details"])
        parts.append(
            element(
                "details",
                element("summary", row["step"]),
                element("pre", element("code", text), tabindex="0"),
                class_="panel",
            )
        )
    if told:
        parts.insert(len(parts) - len(told), element("h3", say("details")))
    return (
        section("recipe", *parts, lead=say("recipe_lead") if report.recipe else None) if parts else Markup("")
    )


def environment(report: Report) -> Markup:
    """Return the machine, the task and the artifact as lists of facts."""
    parts = []
    for key, values in (
        ("machine", report.environment),
        ("task", report.task),
        ("artifact", report.artifact),
    ):
        facts = [join(element("dt", name), element("dd", value)) for name, value in compare.flat(values)]
        if facts:
            parts.append(element("div", element("h3", say(key)), element("dl", *facts), class_="panel"))
    return section("environment", element("div", *parts, class_="columns")) if parts else Markup("")


def reading() -> Markup:
    """Return how the numbers are to be read."""
    return section("reading", element("div", say("reading_text", tag="p"), class_="panel"))
