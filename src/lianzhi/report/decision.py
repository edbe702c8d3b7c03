"""The page's decision: where the result runs and why, the candidates, and the notes."""

from __future__ import annotations

from typing import Any

from lianzhi.report import compare, format
from lianzhi.report.data import Report
from lianzhi.report.markup import Markup, element, escape, join, say
from lianzhi.report.parts import section, stacked

HEADS = {
    "runtime": "runtime",
    "precision": "precision",
    "file": "file_name",
    "median_ms": "median",
    "p90_ms": "p90",
    "validation": "validation",
    "bytes": "file_size",
    "verdict": "verdict",
}


def decision(report: Report) -> Markup:
    """Return what was chosen and why, the candidates, and the notes."""
    parts: list[Markup] = []
    chosen = report.decision
    if chosen.get("runtime"):
        name = format.runtime(chosen["runtime"], chosen.get("precision"))
        reason = element("p", chosen["reason"]) if chosen.get("reason") else ""
        parts.append(
            element("div", element("h3", say("chosen", runtime=name)), reason, class_="panel chosen")
        )
    candidates = chosen.get("candidates")
    if isinstance(candidates, list) and candidates:
        parts.append(_candidates(candidates, chosen, report.rows[0]["metric"]))
    if report.notes:
        notes = element("ul", *(element("li", note) for note in report.notes), class_="notes")
        parts.append(element("div", element("h3", say("notes")), notes, class_="panel"))
    return section("decision", *parts) if parts else Markup("")


def _candidates(candidates: list[Any], chosen: dict[str, Any], metric: str) -> Markup:
    """A table of whatever each candidate says of itself."""
    rows = [
        dict(compare.flat(candidate)) if isinstance(candidate, dict) else {"name": candidate}
        for candidate in candidates
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row)) or ["name"]
    heads = [say(HEADS[key]) if key in HEADS else escape(key.replace("_", " ")) for key in keys]
    body = []
    for row in rows:
        first, *rest = (_value(key, row.get(key), metric) for key in keys)
        kept = "runtime" in row and all(row.get(key) == chosen.get(key) for key in ("runtime", "precision"))
        body.append((first, rest, "final" if kept else None))
    title = element("h3", say("candidates"), id="h-candidates")
    return join(title, stacked(heads, body, label="h-candidates", wrap=True))


def _value(key: str, value: Any, metric: str) -> Markup:
    if value is None or isinstance(value, bool):
        return escape("✓" if value else format.UNKNOWN)
    if isinstance(value, (int, float)):
        if key.endswith("_ms"):
            return escape(format.milliseconds(value))
        if key in ("value", "validation"):
            return escape(format.metric_value(value, metric))
        return escape(format.size(value) if key == "bytes" else f"{value:,}")
    return escape(value)
