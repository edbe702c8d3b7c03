"""The page of several runs: what ships of each, their steps, charts of all, how they differ, and their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lianzhi.report import by_layer, charts, compare, format, wording
from lianzhi.report.data import Row
from lianzhi.report.figure import figure
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import folded, section, stacked
from lianzhi.report.runs import (
    Run,
    conditions,
    differences,
    facts,
    grouped,
    question,
    remarks,
    settings,
)

Key = float | str | None
UNFOLDED = 24  # rows of a table that is open when the page is
QUANTITIES = ("value", "parameters", "bytes", "macs", "latency_ms", "latency_p90_ms")
HIGHER = ("value",)  # the others are better when lower


def comparison(runs: Sequence[Run]) -> Markup:
    """Return the page's content."""
    return join(
        _header(runs),
        _shipped(runs),
        _tradeoffs(runs),
        _steps(runs),
        _differences(runs, "recipes", [settings(run.report.recipe) for run in runs]),
        by_layer.of_runs(runs),
        _differences(runs, "environments", [facts(run.report.environment) for run in runs]),
        _recipes(runs),
    )


def _header(runs: Sequence[Run]) -> Markup:
    said = [element("li", say(key, **values)) for key, values in remarks(runs)]
    names = [element("li", text) for text in grouped(runs, question)]
    return element(
        "div",
        element("p", say("comparison"), class_="eyebrow"),
        element("h1", say("runs_compared", count=len(runs))),
        element("ul", *names, class_="facts"),
        element("ul", *said, class_="notes panel remarks") if said else "",
        class_="title",
    )


def _of(row: Row, key: str) -> Any:
    return row[key]  # type: ignore[literal-required]


def _best(runs: Sequence[Run]) -> dict[str, float]:
    """The best value of each column, where there is one to be had: several runs that answer the same question."""
    if len(runs) < 2 or len(grouped(runs, question)) > 1:
        return {}
    keys = QUANTITIES if len(grouped(runs, conditions)) < 2 else QUANTITIES[:-2]
    found = {}
    for key in keys:
        values = [_of(compare.final(run.report), key) for run in runs]
        values = [value for value in values if value is not None]
        if len(set(values)) > 1:
            found[key] = max(values) if key in HIGHER else min(values)
    return found


def _heads(runs: Sequence[Run], first: str, *, memory: bool) -> list[Markup]:
    metrics = {format.metric_name(run.report.rows[0]["metric"]) for run in runs}
    metric = escape(metrics.pop()) if len(metrics) == 1 else say("metric")
    heads = [say(first), metric]
    heads += [say(key) for key in ("parameters", "file_size", "macs", "latency", "p90")]
    return heads + [say("memory")] * memory


def _cells(
    row: Row, original: Row, best: dict[str, float], *, compared: bool, memory: bool
) -> tuple[list[Markup], list[Key]]:
    """A row's numbers as the table shows them, and as it sorts them."""
    names = [*QUANTITIES, *(["memory_mb"] if memory else [])]
    cells = []
    for name, (value, change) in zip(
        names, wording.cells(row, original, compared=compared, memory=memory), strict=True
    ):
        shown = element("b", value, class_="best") if name in best and _of(row, name) == best[name] else value
        cells.append(join(shown, element("small", change) if change else ""))
    return cells, [_of(row, name) for name in names]


def _runtime(row: Row) -> str | None:
    shipped = compare.deployed(row)
    return format.runtime(shipped["runtime"], shipped["precision"]) if shipped else None


def _shipped(runs: Sequence[Run]) -> Markup:
    """The table of what each run ships."""
    finals = [compare.final(run.report) for run in runs]
    memory = any(row["memory_mb"] is not None for row in finals)
    best, body, keys = _best(runs), [], []
    for run, row in zip(runs, finals, strict=True):
        report, original = run.report, run.report.rows[0]
        cells, sorts = _cells(row, original, best, compared=row is not original, memory=memory)
        shipped = compare.deployed(row)
        base = compare.baselines(report, shipped)["float"] if shipped else None
        against = None if base is None or row is original else compare.speedup(base, shipped)
        seconds = sum(step["seconds"] or 0.0 for step in report.rows)
        runtime = _runtime(row)
        extra = [format.times(against), runtime or format.UNKNOWN, format.seconds(seconds or None)]
        about = " · ".join(part for part in (compare.model_name(report), compare.task_name(report)) if part)
        title = join(run.name, element("small", about))
        body.append((title, [*cells, *map(escape, extra)], None))
        keys.append([run.name, *sorts, against, runtime, seconds or None])
    heads = [*_heads(runs, "run", memory=memory), say("vs_float"), say("runs_on"), say("time")]
    lead = say("shipped_best_lead") if best else say("shipped_lead")
    return section("shipped", stacked(heads, body, label="h-shipped", keys=keys), lead=lead)


def _steps(runs: Sequence[Run]) -> Markup:
    """The table of every step of every run."""
    rows = [row for run in runs for row in run.report.rows]
    memory = any(row["memory_mb"] is not None for row in rows)
    body, keys = [], []
    for run in runs:
        original = run.report.rows[0]
        for index, row in enumerate(run.report.rows):
            cells, sorts = _cells(row, original, {}, compared=index > 0, memory=memory)
            runtime = _runtime(row)
            extra = [escape(runtime or format.UNKNOWN), escape(format.seconds(row["seconds"]))]
            last = 0 < index == len(run.report.rows) - 1
            title = join(row["step"], element("small", run.name))
            body.append((title, [*cells, *extra], "final" if last else None))
            keys.append([f"{run.name} {index:03d}", *sorts, runtime, row["seconds"]])
    heads = [*_heads(runs, "step", memory=memory), say("runs_on"), say("time")]
    table = stacked(heads, body, label="h-steps", keys=keys)
    return section(
        "steps",
        folded(table, say("all_steps", count=len(body)), when=len(body) > UNFOLDED),
        lead=say("steps_lead"),
    )


def _points(runs: Sequence[Run], key: str) -> list[charts.Point]:
    """A point for each row of the runs that has the quantity; an original that several runs began with is one."""
    found: dict[tuple[str, float, float], charts.Point] = {}
    for run in runs:
        rows = run.report.rows
        for index, row in enumerate(rows):
            value, quantity = row["value"], _of(row, key)
            if value is None or quantity is None:
                continue
            if index == len(rows) - 1:
                point = charts.Point(run.name, quantity, value, "final")
            elif index == 0:
                name = f"{compare.model_name(run.report)} · {row['step']}"
                point = charts.Point(name, quantity, value, "original")
            else:
                point = charts.Point(f"{run.name} · {row['step']}", quantity, value, "step")
            found.setdefault((point.label, point.x, point.y), point)
    return list(found.values())


def _tradeoffs(runs: Sequence[Run]) -> Markup:
    """Charts of the metric against size and latency: one for the runs that answer the same question, measured alike."""
    found: list[Markup] = []
    questions = grouped(runs, question)
    for asked, group in questions.items():
        name = f" · {asked}" if len(questions) > 1 else ""
        size = join(say("accuracy_size"), name)
        found += _figure(group, "bytes", size, format.size, say("file_size"), len(found))
        places = grouped(group, conditions)
        for place, alike in places.items():
            batch = compare.final(alike[0].report)["batch"] or 1
            title = say("accuracy_latency", batch=batch)
            if len(places) > 1:
                title = say("accuracy_latency_in", place=place)
            found += _figure(
                alike, "latency_ms", join(title, name), format.milliseconds, say("latency"), len(found)
            )
    if not found:
        return Markup("")
    return section("tradeoffs", element("div", *found, class_="charts"), lead=say("runs_tradeoffs_lead"))


def _figure(
    runs: Sequence[Run],
    key: str,
    title: Markup,
    write: Callable[[float | None], str],
    head: Markup,
    index: int,
) -> list[Markup]:
    points = _points(runs, key)
    if not points:
        return []
    firsts = {point.label: point for point in reversed(points)}
    return [
        figure(
            points,
            metric=runs[0].report.rows[0]["metric"],
            name=f"{key}-{index}",
            title=title,
            write_x=write,
            head=head,
            chain=False,
            named=lambda point: point.kind != "step" and firsts[point.label] is point,
        )
    ]


def _differences(runs: Sequence[Run], name: str, values: list[dict[str, str]]) -> Markup:
    """A table of the settings that differ, a column a run; those that are the same are folded."""
    if not any(values):
        return Markup("")
    found = differences(values)
    parts = []
    if found.differing:
        heads = [say("setting"), *(escape(run.name) for run in runs)]
        body = [
            (key, [escape(format.UNKNOWN if value is None else value) for value in row], None)
            for key, row in found.differing
        ]
        parts.append(element("div", stacked(heads, body, label=f"h-{name}"), class_="differences"))
    if found.shared:
        listed = [join(element("dt", key), element("dd", value)) for key, value in found.shared.items()]
        summary = element("summary", say("the_same", count=len(found.shared)))
        parts.append(element("details", summary, element("dl", *listed), class_="panel"))
    return section(name, *parts, lead=say(f"{name}_lead") if found.differing else None)


def _recipes(runs: Sequence[Run]) -> Markup:
    """Every recipe in full, folded."""
    parts = [
        element(
            "details",
            element("summary", run.name),
            element("pre", element("code", wording.to_yaml(run.report.recipe)), tabindex="0"),
            class_="panel",
        )
        for run in runs
        if run.report.recipe
    ]
    return section("recipe", *parts, lead=say("recipe_lead")) if parts else Markup("")
