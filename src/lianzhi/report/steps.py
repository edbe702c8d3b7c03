"""The page's middle: the table of steps, and accuracy against size and latency."""

from __future__ import annotations

from collections.abc import Callable

from lianzhi.report import axes, charts, compare, format, wording
from lianzhi.report.data import Report, Row
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import section, stacked


def steps(report: Report) -> Markup:
    """Return the table of steps."""
    original = report.rows[0]
    columns = [key for key in ("validation", "memory_mb") if any(row[key] is not None for row in report.rows)]  # type: ignore[literal-required]
    metric = escape(format.metric_name(original["metric"]))
    heads = [say("step"), metric, *([say("validation")] if "validation" in columns else [])]
    heads += [say(key) for key in ("parameters", "file_size", "macs", "latency", "p90")]
    heads += [*([say("memory")] if "memory_mb" in columns else []), say("runs_on"), say("time")]
    body = []
    for index, row in enumerate(report.rows):
        cells = _step_cells(row, original, columns, compared=index > 0)
        body.append((row["step"], cells, "final" if 0 < index == len(report.rows) - 1 else None))
    return section("steps", stacked(heads, body, label="h-steps"), lead=say("steps_lead"))


def _step_cells(row: Row, original: Row, columns: list[str], *, compared: bool) -> list[Markup]:
    shipped, reference = compare.deployed(row), compare.deployed(original)
    metric = original["metric"]

    def cell(value: str, change: str = format.UNKNOWN) -> Markup:
        small = element("small", change) if compared and change != format.UNKNOWN else ""
        return join(value, small)

    cells = [
        cell(
            format.metric_value(row["value"], metric),
            format.metric_change(row["value"], original["value"], metric),
        )
    ]
    if "validation" in columns:
        cells.append(cell(format.metric_value(row["validation"], metric)))
    cells += [
        cell(
            format.count(row["parameters"]),
            wording.parameters(row, original),
        ),
        cell(format.size(row["bytes"]), format.times(compare.ratio(original["bytes"], row["bytes"]))),
        cell(format.count(row["macs"]), format.times(compare.ratio(original["macs"], row["macs"]))),
        cell(format.milliseconds(row["latency_ms"]), format.times(compare.speedup(reference, shipped))),
        cell(format.milliseconds(row["latency_p90_ms"])),
    ]
    if "memory_mb" in columns:
        used = row["memory_mb"]
        cells.append(cell(format.UNKNOWN if used is None else f"{format.significant(used)} MB"))
    runtime = format.runtime(shipped["runtime"], shipped["precision"]) if shipped else format.UNKNOWN
    return [*cells, escape(runtime), escape(format.seconds(row["seconds"]))]


def tradeoffs(report: Report) -> Markup:
    """Return the two charts: accuracy against size, and against latency."""
    rows = [row for row in report.rows if row["value"] is not None]
    sizes = [_point(report, row, row["bytes"]) for row in rows if row["bytes"] is not None]
    times = [_point(report, row, row["latency_ms"]) for row in rows if row["latency_ms"] is not None]
    times += _float_points(report)
    batch = compare.final(report)["batch"] or 1
    found = []
    if sizes:
        found.append(
            _chart(report, sizes, "accuracy_size", say("accuracy_size"), format.size, say("file_size"))
        )
    if times:
        title = say("accuracy_latency", batch=batch)
        found.append(_chart(report, times, "accuracy_latency", title, format.milliseconds, say("latency")))
    if not found:
        return Markup("")
    return section("tradeoffs", element("div", *found, class_="charts"), lead=say("tradeoffs_lead"))


def _point(report: Report, row: Row, x: float) -> charts.Point:
    kind = "original" if row is report.rows[0] else "final" if row is report.rows[-1] else "step"
    return charts.Point(row["step"], x, row["value"] or 0.0, kind)


def _float_points(report: Report) -> list[charts.Point]:
    """The original in the other float runtimes: as accurate, and often faster than eager PyTorch."""
    original = report.rows[0]
    own = compare.deployed(original)
    points = []
    for entry in original["latencies"]:
        if own is None or entry is own or original["value"] is None or compare.speedup(own, entry) is None:
            continue
        name = format.runtime(entry["runtime"], entry["precision"])
        points.append(charts.Point(name, entry["median_ms"] or 0.0, original["value"], "runtime"))
    return points


def _chart(
    report: Report,
    points: list[charts.Point],
    name: str,
    title: Markup,
    write_x: Callable[[float], str],
    head: Markup,
) -> Markup:
    metric = report.rows[0]["metric"]
    share = metric not in format.CORRELATIONS
    drawing = charts.scatter(
        points,
        name=f"c-{name}",
        write_x=write_x,
        write_y=lambda value: format.metric_value(value, metric),
        write_tick=lambda value: f"{100 * value:g}%" if share else f"{value:g}",
        least=0.01,
    )
    log = axes.x_axis([point.x for point in points]).log
    kinds = dict.fromkeys(point.kind for point in points)
    legend = [element("li", say(f"legend_{kind}"), class_=kind) for kind in (*kinds, "front")]
    rows = [(p.label, [escape(write_x(p.x)), escape(format.metric_value(p.y, metric))], None) for p in points]
    table = stacked([say("point"), head, escape(format.metric_name(metric))], rows, label=f"c-{name}")
    caption = [
        element("h3", title, id=f"c-{name}"),
        element("span", say("log_scale"), class_="fine") if log else "",
    ]
    return element(
        "figure",
        element("figcaption", *caption),
        drawing,
        element("ul", *legend, class_="legend"),
        element("details", element("summary", say("as_table")), table),
        class_="panel chart",
    )
