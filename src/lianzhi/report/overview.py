"""The page's beginning: the title and the headline cards."""

from __future__ import annotations

from collections.abc import Callable

from lianzhi.report import compare, format
from lianzhi.report.data import LatencyEntry, Report, Row
from lianzhi.report.markup import Markup, element, escape, say


def header(report: Report) -> Markup:
    """Return the title: the model, its task, and the chain of steps."""
    task = compare.task_name(report)
    shipped = compare.deployed(compare.final(report))
    facts = []
    if task:
        facts.append(element("li", say("on", task=task)))
    if shipped and len(report.rows) > 1:
        facts.append(
            element("li", say("target", runtime=format.runtime(shipped["runtime"], shipped["precision"])))
        )
    cpu = report.environment.get("cpu")
    if isinstance(cpu, str) and cpu:
        facts.append(element("li", cpu))
    chain = [
        element("li", row["step"], class_="end" if row is report.rows[-1] else None) for row in report.rows
    ]
    return element(
        "div",
        element("p", say("report"), class_="eyebrow"),
        element("h1", compare.model_name(report)),
        element("ul", *facts, class_="facts") if facts else "",
        element("ol", *chain, class_="chain") if len(chain) > 1 else "",
        class_="title",
    )


def cards(report: Report) -> Markup:
    """Return the headline: accuracy, size, speed, compute, before and after."""
    original, last = report.rows[0], compare.final(report)
    found = [
        _accuracy(report, original, last),
        _size(original, last),
        _speed(report, original, last),
        _compute(original, last),
    ]
    head = element("h2", say("summary"), class_="visually-hidden", id="h-summary")
    return element(
        "section", head, element("div", *found, class_="cards"), aria_labelledby="h-summary", id="summary"
    )


def _card(
    name: str, big: object, detail: object, *lines: Markup, before: float | None, after: float | None
) -> Markup:
    bars: Markup | str = ""
    if detail and before is not None and after is not None and max(before, after) > 0:
        widths = [100 * max(value, 0) / max(before, after) for value in (before, after)]
        bars = element(
            "div",
            *(
                element("i", class_=kind, style=f"width:{width:.2f}%")
                for kind, width in zip(("was", "is"), widths, strict=True)
            ),
            class_="pair",
            aria_hidden="true",
        )
    return element(
        "article",
        element("h3", say(name)),
        element("p", big, class_="big"),
        element("p", detail, class_="was-is"),
        bars,
        *(element("p", line, class_="fine") for line in lines),
        class_="card",
    )


def _accuracy(report: Report, original: Row, last: Row) -> Markup:
    metric = original["metric"]
    split, samples = compare.evaluated_on(report)
    name = format.metric_name(metric)
    if split and samples:
        source = say("metric_on", metric=name, split=split, samples=f"{samples:,}")
    else:
        source = say("metric_split", metric=name, split=split) if split else say("metric_only", metric=name)
    change = format.metric_change(last["value"], original["value"], metric)
    detail: object = say(
        "was",
        before=format.metric_value(original["value"], metric),
        after=format.metric_value(last["value"], metric),
    )
    big: object = say("change" if metric in format.CORRELATIONS else "points", change=change)
    if last is original or change == format.UNKNOWN:
        big, detail = format.metric_value(last["value"], metric), ""
    return _card("accuracy", big, detail, source, before=original["value"], after=last["value"])


def _size(original: Row, last: Row) -> Markup:
    file = escape(last["size_file"]) if last["size_file"] else say("file")
    big, detail = _change(
        original, last, original["bytes"], last["bytes"], format.size, ("smaller", "larger")
    )
    return _card("size", big, detail, file, before=original["bytes"], after=last["bytes"])


def _compute(original: Row, last: Row) -> Markup:
    lines = [say("macs_of")]
    parameters = compare.ratio(original["parameters"], last["parameters"])
    if parameters is not None and parameters >= 1.005:
        lines.append(say("parameters_were", times=format.times(parameters)))
    big, detail = _change(original, last, original["macs"], last["macs"], format.count, ("fewer", "more"))
    return _card("compute", big, detail, *lines, before=original["macs"], after=last["macs"])


def _speed(report: Report, original: Row, last: Row) -> Markup:
    reference, shipped = compare.deployed(original), compare.deployed(last)
    before, after = original["latency_ms"], last["latency_ms"]
    if compare.speedup(reference, shipped) is None:
        before = None
    big, detail = _change(original, last, before, after, format.milliseconds, ("faster", "slower"))
    lines = []
    if shipped:
        compared = last is not original and before is not None
        base = reference if compared and reference else shipped
        runtime = (
            say("eager")
            if base["runtime"] == "pytorch"
            else format.runtime(base["runtime"], base["precision"])
        )
        threads = shipped["threads"]
        using = (
            say("threads", threads=threads)
            if threads and threads > 1
            else say("one_thread" if threads else "any_threads")
        )
        key = "speed_against" if compared else "speed_alone"
        lines.append(say(key, runtime=runtime, batch=shipped["batch"] or 1, threads=using))
        lines += _more_speed(report, shipped) if compared else []
    return _card("speed", big, detail, *lines, before=before, after=after)


def _more_speed(report: Report, shipped: LatencyEntry) -> list[Markup]:
    """The lines that keep the headline honest: against the fastest float, and at other batch sizes."""
    lines = []
    best = compare.baselines(report, shipped)["float"]
    if best is not None and best["runtime"] != "pytorch":
        times = format.times(compare.speedup(best, shipped))
        name = format.runtime(best["runtime"], best["precision"])
        lines.append(
            say("against_float", times=times, runtime=name, latency=format.milliseconds(best["median_ms"]))
        )
    for item in compare.measured(report):
        batch = item.entry["batch"] or 1
        if item.deployed and item.against_eager is not None and batch != (shipped["batch"] or 1):
            lines.append(say("at_batch", times=format.times(item.against_eager), batch=batch))
    return lines


def _change(
    original: Row,
    last: Row,
    before: float | None,
    after: float | None,
    write: Callable[[float | None], str],
    words: tuple[str, str],
) -> tuple[object, object]:
    """Return a card's headline and its second line."""
    ratio = compare.ratio(before, after)
    if after is None:
        return say("unknown"), ""
    if last is original or ratio is None:
        return write(after), ""
    detail = say("was", before=write(before), after=write(after))
    if 0.995 < ratio < 1.005:
        return say("same"), detail
    return say(words[0] if ratio > 1 else words[1], times=format.times(max(ratio, 1 / ratio))), detail
