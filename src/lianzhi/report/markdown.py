"""The report as Markdown: the two tables, the decision and notes, the recipe, the environment.

User text (names of steps, notes) is escaped: it can neither break a table nor become a link or HTML.
"""

from __future__ import annotations

import re

from lianzhi.report import compare, format, weights, wording
from lianzhi.report.data import Report
from lianzhi.report.words import WORDS


def markdown(report: Report) -> str:
    """Return the whole report as GitHub-flavoured Markdown."""
    parts = [f"# {escape(wording.title(report))}", _steps(report)]
    if any(row["latencies"] for row in report.rows):
        parts += ["## Latency of every runtime", _latencies(report)]
        parts += [escape(line) for line in wording.float_lines(report)]
    chosen = wording.decision(report)
    parts += [escape(chosen)] if chosen else []
    if report.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in report.notes))
    parts.append(escape(wording.reading(report)))
    if any(layer.get("before") is not None for layer in report.layers):
        parts += ["## Channels per layer", _layers(report)]
    found = weights.table(report)
    if found:
        head = ["Layer", "Weights (float32)", "Kept", "Bits (entropy/coded)", "Index bits (entropy/coded)"]
        head += [*(f"after {escape(step)}" for step in found.stages), "without Huffman", "Ratio"]
        named = [*found.layers, *((WORDS[word][0], cells) for word, cells in found.sums)]
        lines = [[escape(name), *(_remarked(*cell) for cell in cells)] for name, cells in named]
        parts += ["## Weights by layer", grid(head, lines, right=1)]
    if report.recipe:
        parts += ["## Recipe", fence(wording.to_yaml(report.recipe), "yaml")]
    if report.environment:
        rows = [[escape(key), escape(value)] for key, value in compare.flat(report.environment)]
        parts += ["## Environment", grid(["What", "Value"], rows)]
    return "\n\n".join(parts) + "\n"


def escape(content: object) -> str:
    r"""Make text inert in Markdown and HTML.

    >>> escape("a|b <script> [x](y)")
    'a\\|b &lt;script&gt; \\[x\\](y)'
    """
    line = " ".join(format.clean(content).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def fence(content: str, language: str) -> str:
    """Put text in a code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{format.clean(content).rstrip()}\n{ticks}"


def grid(head: list[str], rows: list[list[str]], right: int = -1) -> str:
    """Return a table; columns from `right` on are right-aligned."""
    rule = ["---:" if 0 <= right <= index else "---" for index in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def _remarked(value: str, remark: str) -> str:
    return f"{value} ({remark})" if remark else value


def _steps(report: Report) -> str:
    original = report.rows[0]
    memory = any(row["memory_mb"] is not None for row in report.rows)
    metric = escape(format.metric_name(original["metric"]))
    head = ["Step", metric, "Parameters", "Size", "MACs", "Latency", "p90", *(["Memory"] if memory else [])]
    rows = []
    for index, row in enumerate(report.rows):
        cells = wording.cells(row, original, compared=index > 0, memory=memory)
        shipped = compare.deployed(row)
        runs = format.runtime(shipped["runtime"], shipped["precision"]) if shipped else format.UNKNOWN
        numbers = [_remarked(*cell) for cell in cells]
        rows.append([escape(row["step"]), *numbers, escape(runs), format.seconds(row["seconds"])])
    return grid([*head, "Runs on", "Time"], rows, right=1)


def _latencies(report: Report) -> str:
    head = ["Model", "Runtime", "Precision", "Batch", "Threads", "Median", "p90"]
    head += ["vs eager", "vs best float", "vs own f32"]
    rows = []
    for item in compare.measured(report):
        entry = item.entry
        speedups = (item.against_eager, item.against_float, item.against_same)
        rows.append(
            [
                escape(item.step) + (" ●" if item.deployed else ""),
                escape(entry["runtime"]),
                escape(entry["precision"] or format.UNKNOWN),
                str(entry["batch"] or 1),
                str(entry["threads"] or format.UNKNOWN),
                format.milliseconds(entry["median_ms"]),
                format.milliseconds(entry["p90_ms"]),
                *("" if x is None else format.times(x) for x in speedups),
            ]
        )
    return grid(head, rows, right=3)


def _layers(report: Report) -> str:
    rows = []
    for layer in report.layers:
        before, after = layer.get("before"), layer.get("after")
        if before is None:
            continue
        kept = format.UNKNOWN if not before or after is None else f"{100 * after / before:.0f}%"
        rows.append([escape(layer["name"]), escape(before), escape(after), kept])
    return grid(["Layer", "Before", "After", "Kept"], rows, right=1)
