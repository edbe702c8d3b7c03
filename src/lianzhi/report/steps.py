"""The page's middle: the table of steps, and accuracy against size and latency."""

from __future__ import annotations

from lianzhi.report import charts, compare, format, wording
from lianzhi.report.data import Report, Row
from lianzhi.report.figure import figure
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
    keys = [[f"{index:03d}", *_keys(row, columns)] for index, row in enumerate(report.rows)]
    return section("steps", stacked(heads, body, label="h-steps", keys=keys), lead=say("steps_lead"))


def _keys(row: Row, columns: list[str]) -> list[float | str | None]:
    """What the table sorts a row by, in the order of its cells."""
    names = ["value", *(["validation"] if "validation" in columns else [])]
    names += ["parameters", "bytes", "macs", "latency_ms", "latency_p90_ms"]
    names += [*(["memory_mb"] if "memory_mb" in columns else []), "runtime", "seconds"]
    return [row[name] for name in names]  # type: ignore[literal-required]


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
    batch, metric = compare.final(report)["batch"] or 1, report.rows[0]["metric"]
    found = []
    if sizes:
        found.append(
            figure(
                sizes,
                metric=metric,
                name="accuracy_size",
                title=say("accuracy_size"),
                write_x=format.size,
                head=say("file_size"),
            )
        )
    if times:
        title = say("accuracy_latency", batch=batch)
        found.append(
            figure(
                times,
                metric=metric,
                name="accuracy_latency",
                title=title,
                write_x=format.milliseconds,
                head=say("latency"),
            )
        )
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
