"""The sentences, cells and YAML that the printed table, Markdown and the page share."""

from __future__ import annotations

from typing import Any

import yaml

from lianzhi.report import compare, format
from lianzhi.report.data import Report, Row


def title(report: Report) -> str:
    """Say which model, on what: `resnet20 on cifar10 · top-1 of test (10,000 samples)`."""
    task = compare.task_name(report)
    split, samples = compare.evaluated_on(report)
    measure = format.metric_name(report.rows[0]["metric"])
    measure += f" on {split}" if split else ""
    measure += f" ({samples:,} samples)" if samples else ""
    name = compare.model_name(report) + (f" on {task}" if task else "")
    return f"{name} · {measure}"


def cells(row: Row, original: Row, *, compared: bool, memory: bool) -> list[tuple[str, str]]:
    """The numeric cells of a row: (value, change against the original)."""
    metric = original["metric"]
    shipped, reference = compare.deployed(row), compare.deployed(original)
    p90 = shipped["p90_ms"] if shipped else None
    pairs = [
        (
            format.metric_value(row["value"], metric),
            format.metric_change(row["value"], original["value"], metric),
        ),
        (format.count(row["parameters"]), parameters(row, original)),
        (format.size(row["bytes"]), format.times(compare.ratio(original["bytes"], row["bytes"]))),
        (format.count(row["macs"]), format.times(compare.ratio(original["macs"], row["macs"]))),
        (format.milliseconds(row["latency_ms"]), format.times(compare.speedup(reference, shipped))),
        (format.milliseconds(p90), ""),
    ]
    if memory:
        used = row["memory_mb"]
        pairs.append((format.UNKNOWN if used is None else f"{format.significant(used)} MB", ""))
    return [(value, change if compared and change != format.UNKNOWN else "") for value, change in pairs]


def parameters(row: Row, original: Row) -> str:
    """How many fewer parameters there are, or how many of them are not zero.

    >>> parameters({"parameters": 50, "nonzero": None}, {"parameters": 100})
    '2.00×'
    >>> parameters({"parameters": 100, "nonzero": 7}, {"parameters": 100})
    '7 ≠ 0'
    """
    if row["nonzero"] is not None:
        return f"{format.count(row['nonzero'])} ≠ 0"
    return format.times(compare.ratio(original["parameters"], row["parameters"]))


def float_lines(report: Report) -> list[str]:
    """Name the fastest float of the original at each batch."""
    return [
        f"Fastest float of the original at batch {entry['batch'] or 1}: {entry['runtime']} "
        f"{entry['precision'] or 'f32'}, {format.milliseconds(entry['median_ms'])}"
        for entry in compare.fastest_floats(report)
    ]


def decision(report: Report) -> str | None:
    """Say where the result runs and why."""
    chosen = report.decision
    if not chosen.get("runtime"):
        return None
    precision = f" {chosen['precision']}" if chosen.get("precision") else ""
    reason = f": {chosen['reason']}" if chosen.get("reason") else ""
    return f"● Deployed: {chosen['runtime']}{precision}{reason}"


def reading(report: Report) -> str:
    """Say how the numbers are to be read: batch, threads, units."""
    threads = compare.threads(report)
    using = f", {' and '.join(map(str, threads))} thread{'' if threads == [1] else 's'}" if threads else ""
    batch = compare.final(report)["batch"] or 1
    known = any(row["memory_mb"] is not None for row in report.rows)
    memory = "memory is the peak in the runtime that ships, the original's as well; " if known else ""
    return (
        f"Latency is the median at batch {batch}{using}; × is against the original; {memory}"
        "MACs are of one sample; 1 MB = 1,000,000 bytes."
    )


class _Dumper(yaml.SafeDumper):
    """Lists of plain values stay on one line; nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list(dumper: _Dumper, data: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, (dict, list)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short)


_Dumper.add_representer(list, _list)


def to_yaml(value: Any) -> str:
    """Write plain data as YAML, keys in their own order.

    >>> print(to_yaml({"widths": [64, 128], "steps": [{"prune": {"ratio": 0.5}}]}), end="")
    widths: [64, 128]
    steps:
    - prune:
        ratio: 0.5
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=88)
