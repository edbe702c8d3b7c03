"""What every part of the page is made of: titled sections, and tables that fit a phone."""

from __future__ import annotations

from collections.abc import Sequence

from lianzhi.report.markup import Markup, element, say


def section(name: str, *children: object, lead: Markup | None = None) -> Markup:
    """Return a titled section, labelled by its heading for screen readers."""
    head = element("h2", say(name), id=f"h-{name}")
    intro = element("p", lead, class_="lead") if lead else ""
    return element("section", head, intro, *children, aria_labelledby=f"h-{name}", id=name)


def stacked(
    heads: list[Markup],
    body: Sequence[tuple[object, Sequence[Markup], str | None]],
    *,
    label: str,
    wrap: bool = False,
) -> Markup:
    """Return a table that becomes a list of cards on a phone; roles keep it a table for screen readers.

    A row is (title, cells, class); `wrap` lets long cells take several lines.
    """
    head = element(
        "tr", *(element("th", name, scope="col", role="columnheader") for name in heads), role="row"
    )
    rows = []
    for title, cells, kind in body:
        named = zip(heads[1:], cells, strict=True)
        columns = (
            element(
                "td",
                element("span", name, class_="cell-label", aria_hidden="true"),
                element("span", value, class_="value"),
                role="cell",
            )
            for name, value in named
        )
        rows.append(
            element(
                "tr", element("th", title, scope="row", role="rowheader"), *columns, role="row", class_=kind
            )
        )
    table = element(
        "table",
        element("thead", head, role="rowgroup"),
        element("tbody", *rows, role="rowgroup"),
        role="table",
        class_="stacked wrap" if wrap else "stacked",
        aria_labelledby=label,
    )
    return element("div", table, class_="panel scroll", tabindex="0", role="region", aria_labelledby=label)
