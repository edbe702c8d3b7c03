"""The HTML page: one file, offline, for a phone, a desktop or paper, in light and dark, English and Chinese.

It refers to nothing outside itself, and its Content-Security-Policy lets only its own script run: the
hash of `page.js`. Without scripts it is complete, in English.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from importlib import resources

from lianzhi.report import by_layer, compare, comparison, decision, detail, format, overview, steps, weights
from lianzhi.report.data import Report
from lianzhi.report.markup import Markup, join, say
from lianzhi.report.runs import Run


def page(report: Report) -> str:
    """Return the page of one report."""
    main = join(
        overview.header(report),
        overview.cards(report),
        steps.steps(report),
        steps.tradeoffs(report),
        detail.latencies(report),
        detail.layers(report),
        by_layer.of_one(report),
        weights.weights(report),
        detail.timeline(report),
        decision.decision(report),
        detail.reproduce(report),
        detail.environment(report),
        detail.reading(),
    )
    return _filled(compare.model_name(report), main)


def page_of_runs(runs: Sequence[Run]) -> str:
    """Return the page that compares several runs."""
    main = join(comparison.comparison(runs), detail.reading())
    return _filled(" / ".join(run.name for run in runs), main)


def _filled(name: str, main: Markup) -> str:
    script, style = _part("page.js"), _part("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = f"{name} · Lianzhi"
    filled = {
        "title": html.escape(format.clean(title)),
        "script_hash": f"sha256-{digest}",
        "style": style,
        "script": script,
        "main": main,
        **{key: say(key) for key in ("skip", "theme", "print")},
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return resources.files("lianzhi.report").joinpath(name).read_text(encoding="utf-8")
