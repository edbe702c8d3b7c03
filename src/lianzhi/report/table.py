"""The printed tables: within 100 columns, plain or in colour.

The first has a row a step, each number with its change against the original below it; the second has
every latency that was measured.
"""

from __future__ import annotations

import io

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lianzhi.report import compare, format, weights, wording
from lianzhi.report.data import Report
from lianzhi.report.words import WORDS

WIDTH = 100
NOTES = 6


def text(report: Report, width: int = WIDTH) -> str:
    """Return both tables as plain text; no line is longer than `width`."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, legacy_windows=False, force_terminal=False)
    console.print(renderable(report))
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join(lines).strip("\n")


def renderable(report: Report) -> Group:
    """Return both tables for a Rich console."""
    parts: list[Text | Table] = [_text(wording.title(report), "bold"), steps(report)]
    if any(row["latencies"] for row in report.rows):
        parts += [_text("Latency of every runtime", "bold"), latencies(report)]
        parts += [_text(line, "dim") for line in wording.float_lines(report)]
    if found := weights.table(report):
        parts += [
            _text("Weights by layer: bytes in a packed file; below the bits, entropy/bits achieved", "bold"),
            weights_table(found),
        ]
    chosen = wording.decision(report)
    parts += [_text(chosen)] if chosen else []
    parts += [_text(f"Note: {note}") for note in report.notes[:NOTES]]
    if len(report.notes) > NOTES:
        parts.append(_text(f"Note: {len(report.notes) - NOTES} more notes are in report.json and the page"))
    parts.append(_text(wording.reading(report), "dim"))
    return Group(*parts)


def steps(report: Report) -> Table:
    """Return the table of steps."""
    original = report.rows[0]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Step", overflow="fold", min_width=8)
    memory = any(row["memory_mb"] is not None for row in report.rows)
    names = [format.metric_name(original["metric"]), "Params", "Size", "MACs", "Latency", "p90"]
    for name in [*names, *(["Memory"] if memory else [])]:
        table.add_column(_text(name), justify="right", no_wrap=True)
    table.add_column("Runs on", overflow="fold", max_width=18)
    table.add_column("Time", justify="right", no_wrap=True)
    for index, row in enumerate(report.rows):
        cells = wording.cells(row, original, compared=index > 0, memory=memory)
        shipped = compare.deployed(row)
        runtime = f"{shipped['runtime']}\n{shipped['precision'] or ''}" if shipped else format.UNKNOWN
        last = index == len(report.rows) - 1
        table.add_row(
            _text(row["step"], "bold" if last else ""),
            *(_pair(value, change, strong=last) for value, change in cells),
            _text(runtime.rstrip()),
            _text(format.seconds(row["seconds"]), "dim"),
            end_section=last,
        )
    return table


def latencies(report: Report) -> Table:
    """Return the table of latencies."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Model", overflow="fold")
    table.add_column("Runtime", overflow="fold", min_width=11)
    table.add_column("Prec.", overflow="fold")
    for name in (
        "Batch",
        "Threads",
        "Median",
        "p90",
        "vs\neager",
        "vs best\nfloat",
        "vs own\nf32",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    found = compare.measured(report)
    for index, item in enumerate(found):
        entry = item.entry
        batch = entry["batch"] or 1
        ends = index + 1 == len(found) or (found[index + 1].entry["batch"] or 1) != batch
        begins = index == 0 or found[index - 1].step != item.step
        table.add_row(
            _text((item.step if begins else "") + (" ●" if item.deployed else "")),
            _text(entry["runtime"]),
            _text(entry["precision"] or format.UNKNOWN),
            str(batch),
            str(entry["threads"] or format.UNKNOWN),
            format.milliseconds(entry["median_ms"]),
            format.milliseconds(entry["p90_ms"]),
            *(
                "" if x is None else format.times(x)
                for x in (item.against_eager, item.against_float, item.against_same)
            ),
            end_section=ends,
            style="bold" if item.deployed else "",
        )
    return table


def weights_table(found: weights.Table) -> Table:
    """Return the table of what Deep Compression did to each layer."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Layer", overflow="fold", min_width=8)
    for name in ("Weights\nfloat32", "Kept", "Bits", "Index\nbits"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in found.stages:
        table.add_column(_text(f"after\n{step}"), justify="right", overflow="fold")
    table.add_column("without\nHuffman", justify="right", overflow="fold")
    table.add_column("Ratio", justify="right", no_wrap=True)
    for name, cells in found.layers:
        table.add_row(_text(name), *(_pair(*cell, strong=False) for cell in cells))
    for word, cells in found.sums:
        table.add_row(_text(WORDS[word][0], "bold"), *(_pair(*cell, strong=False) for cell in cells))
    return table


def _pair(value: str, change: str, *, strong: bool) -> Text:
    cell = Text(value, style="bold" if strong else "")
    return cell.append(f"\n{change}", style="cyan" if strong else "dim") if change else cell


def _text(content: str, style: str = "") -> Text:
    return Text(format.clean(content), style=style)
