"""What every part of the page is made of: titled sections, and tables that fit a phone."""

from __future__ import annotations

from collections.abc import Sequence

from lianzhi.report.markup import Markup, element, say

Keys = Sequence[Sequence[float | str | None]]


def section(name: str, *children: object, lead: Markup | None = None) -> Markup:
    """Return a titled section, labelled by its heading for screen readers."""
    head = element("h2", say(name), id=f"h-{name}")
    intro = element("p", lead, class_="lead") if lead else ""
    return element("section", head, intro, *children, aria_labelledby=f"h-{name}", id=name)


def folded(content: Markup, name: Markup, *, when: bool) -> Markup:
    """Return content that is long behind its name, to be unfolded; paper has it unfolded."""
    return element("details", element("summary", name, class_="show"), content) if when else content


def stacked(
    heads: list[Markup],
    body: Sequence[tuple[object, Sequence[Markup], str | None]],
    *,
    label: str,
    wrap: bool = False,
    keys: Keys | None = None,
) -> Markup:
    """Return a table that becomes a list of cards on a phone; roles keep it a table for screen readers.

    A row is (title, cells, class); `wrap` lets long cells take several lines. With `keys`, one for the title and one
    for each cell of every row, the heads sort the table; rows whose key is None come last.
    """
    head = element(
        "tr", *(element("th", name, scope="col", role="columnheader") for name in heads), role="row"
    )
    rows = [
        _row(heads, row, [None] * len(heads) if keys is None else keys[index])
        for index, row in enumerate(body)
    ]
    table = element(
        "table",
        element("thead", head, role="rowgroup"),
        element("tbody", *rows, role="rowgroup"),
        role="table",
        class_="stacked wrap" if wrap else "stacked",
        aria_labelledby=label,
        data_sorts=keys is not None,
    )
    return element("div", table, class_="panel scroll", tabindex="0", role="region", aria_labelledby=label)


def _row(
    heads: list[Markup],
    row: tuple[object, Sequence[Markup], str | None],
    keys: Sequence[float | str | None],
) -> Markup:
    title, cells, kind = row
    columns = (
        element(
            "td",
            element("span", name, class_="cell-label", aria_hidden="true"),
            element("span", value, class_="value"),
            role="cell",
            data_key=key,
        )
        for name, value, key in zip(heads[1:], cells, keys[1:], strict=True)
    )
    first = element("th", title, scope="row", role="rowheader", data_key=keys[0])
    return element("tr", first, *columns, role="row", class_=kind)
