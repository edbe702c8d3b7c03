"""A chart as the pages have it: titled, with a legend, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Callable

from lianzhi.report import axes, charts, format
from lianzhi.report.markup import Markup, element, escape, say
from lianzhi.report.parts import stacked


def figure(
    points: list[charts.Point],
    *,
    metric: str,
    name: str,
    title: Markup,
    write_x: Callable[[float], str],
    head: Markup,
    chain: bool = True,
    named: Callable[[charts.Point], bool] = lambda point: True,
) -> Markup:
    """Return a metric against what `head` names; `chain` joins the steps by a line, `named` points have their names in the picture."""
    share = metric not in format.CORRELATIONS
    drawing = charts.scatter(
        points,
        name=f"c-{name}",
        write_x=write_x,
        write_y=lambda value: format.metric_value(value, metric),
        write_tick=lambda value: f"{100 * value:g}%" if share else f"{value:g}",
        least=0.01,
        chain=chain,
        named=named,
    )
    log = axes.x_axis([point.x for point in points]).log
    kinds = dict.fromkeys(point.kind for point in points)
    legend = [element("li", say(f"legend_{kind}"), class_=kind) for kind in (*kinds, "front")]
    rows = [(p.label, [escape(write_x(p.x)), escape(format.metric_value(p.y, metric))], None) for p in points]
    heads = [say("point"), head, escape(format.metric_name(metric))]
    table = stacked(heads, rows, label=f"c-{name}", keys=[(p.label, p.x, p.y) for p in points])
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
