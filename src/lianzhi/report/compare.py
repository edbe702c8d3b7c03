"""What follows from a report's numbers: ratios, baselines and speed-ups.

A speed-up compares two medians of the same batch and the same number of threads; where there is no such
pair it is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lianzhi.report.data import LatencyEntry, Report, Row
from lianzhi.report.format import known

FLOATS = frozenset({"f64", "f32", "tf32", "f16", "bf16"})


@dataclass(frozen=True)
class Measured:
    """One latency with what it is compared to; `original` tells the dense model from the compressed."""

    step: str
    original: bool
    deployed: bool
    entry: LatencyEntry
    against_eager: float | None
    against_float: float | None
    against_same: float | None


def ratio(before: float | None, after: float | None) -> float | None:
    """How many times smaller `after` is; None where it cannot be said.

    >>> ratio(100, 25), ratio(None, 25), ratio(100, 0)
    (4.0, None, None)
    """
    if before is None or after is None or not known(before) or not known(after) or after <= 0:
        return None
    return before / after


def deployed(row: Row) -> LatencyEntry | None:
    """The row's deployed latency at batch 1, with its precision and threads where they are known."""
    if row["latency_ms"] is None:
        return None
    batch = row["batch"] or 1
    for entry in row["latencies"]:
        same = entry["median_ms"] == row["latency_ms"] and (entry["batch"] or 1) == batch
        if same and entry["runtime"] == row["runtime"] and row["precision"] in (None, entry["precision"]):
            return entry
    return LatencyEntry(
        runtime=row["runtime"] or "?",
        precision=row["precision"],
        batch=batch,
        threads=None,
        median_ms=row["latency_ms"],
        p90_ms=row["latency_p90_ms"],
    )


def speedup(reference: LatencyEntry | None, entry: LatencyEntry | None) -> float | None:
    """How many times faster `entry` is than `reference`; None if batch or threads differ."""
    if reference is None or entry is None or (reference["batch"] or 1) != (entry["batch"] or 1):
        return None
    threads = {reference["threads"], entry["threads"]} - {None}
    return ratio(reference["median_ms"], entry["median_ms"]) if len(threads) <= 1 else None


def baselines(report: Report, like: LatencyEntry) -> dict[str, LatencyEntry | None]:
    """The original model's latencies that `like` is compared to, at its batch and threads.

    `eager` is float PyTorch, `float` the fastest float of any runtime, `same` the runtime's own float32.
    """
    original = report.rows[0]
    own = deployed(original)
    entries = original["latencies"] or ([own] if own else [])
    entries = [x for x in entries if known(x["median_ms"]) and speedup(x, like) is not None]
    floats = [x for x in entries if x["precision"] is None or x["precision"] in FLOATS]
    exact = [x for x in floats if x["precision"] in (None, "f32")]
    return {
        "eager": next((x for x in exact if x["runtime"] == "pytorch"), None),
        "float": min(floats, key=lambda x: x["median_ms"] or 0.0, default=None),
        "same": next((x for x in exact if x["runtime"] == like["runtime"]), None),
    }


def final(report: Report) -> Row:
    """The last row: the compressed model (the original itself if nothing was done)."""
    return report.rows[-1]


def measured(report: Report) -> list[Measured]:
    """Every latency of the original and of the last row that has any, by batch, then model, then speed."""
    original = report.rows[0]
    last = next((row for row in reversed(report.rows) if row["latencies"]), original)
    out = []
    for row in [original] if last is original else [original, last]:
        shipped = deployed(row)
        for entry in row["latencies"]:
            base = baselines(report, entry)
            compared = {key: None if value is entry else speedup(value, entry) for key, value in base.items()}
            out.append(
                Measured(
                    step=row["step"],
                    original=row is original,
                    deployed=row is not original and _same_kind(entry, shipped),
                    entry=entry,
                    against_eager=compared["eager"],
                    against_float=compared["float"],
                    against_same=compared["same"],
                )
            )
    infinite = float("inf")
    return sorted(
        out, key=lambda m: (m.entry["batch"] or 1, not m.original, _or(m.entry["median_ms"], infinite))
    )


def fastest_floats(report: Report) -> list[LatencyEntry]:
    """The fastest float of the original at each batch and number of threads, smallest batch first."""
    found: dict[tuple[int, int], LatencyEntry] = {}
    for entry in report.rows[0]["latencies"]:
        best = baselines(report, entry)["float"]
        if best is not None:
            found[(best["batch"] or 1, best["threads"] or 0)] = best
    return [found[key] for key in sorted(found)]


def model_name(report: Report) -> str:
    """The model's name as the recipe gives it, or that of the artifact's folder with which it began."""
    spec = report.recipe.get("model")
    if isinstance(spec, dict) and not spec.get("name") and isinstance(spec.get("artifact"), str):
        return PurePath(spec["artifact"]).name or "model"
    for source in (spec, report.artifact.get("model"), report.artifact):
        name = source.get("name") if isinstance(source, dict) else source
        if isinstance(name, str) and name:
            return name
    return "model"


def task_name(report: Report) -> str | None:
    """The task's name, if there is one."""
    for source in (report.task, report.recipe.get("task")):
        name = source.get("name") if isinstance(source, dict) else source
        if isinstance(name, str) and name:
            return name
    return None


def evaluated_on(report: Report) -> tuple[str | None, int | None]:
    """The split that the metric was read on and its number of samples."""
    row = final(report)
    split = row["split"] or report.task.get("reported") or report.task.get("split")
    samples: Any = row["samples"] or report.task.get("samples")
    for key in ("sizes", "splits"):
        sizes = report.task.get(key)
        if samples is None and isinstance(sizes, dict):
            samples = sizes.get(split)
    if isinstance(samples, dict):
        samples = samples.get("samples", samples.get("size"))
    return (split if isinstance(split, str) else None), (samples if type(samples) is int else None)


def threads(report: Report) -> list[int]:
    """The numbers of threads that latencies were measured with."""
    every = (entry["threads"] for row in report.rows for entry in row["latencies"])
    return sorted({n for n in every if n})


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts and lists of dicts, with dotted names; lists of plain values are joined by commas.

    >>> list(flat({"cpu": "x", "versions": {"torch": "2"}, "flags": ["vnni", "amx"]}))
    [('cpu', 'x'), ('versions.torch', '2'), ('flags', 'vnni, amx')]
    >>> list(flat({"stages": [{"epochs": 1}, {"epochs": 2}]}))
    [('stages.0.epochs', 1), ('stages.1.epochs', 2)]
    """
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield from flat({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        elif value is not None:
            yield f"{prefix}{key}", value


def _same_kind(entry: LatencyEntry, shipped: LatencyEntry | None) -> bool:
    """Whether both run in the same runtime and precision."""
    if shipped is None:
        return False
    return (entry["runtime"], entry["precision"]) == (shipped["runtime"], shipped["precision"])


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
