"""Milliseconds of a chain's two ends at batch 1, in one call: the original in every float runtime, and the file that ships."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lianzhi import deploy, measure
from lianzhi.errors import DataError, TargetError
from lianzhi.jobs.measuring import measure_model
from lianzhi.jobs.prepare import prepare

Latencies = list[dict[str, Any]]
Ends = tuple[dict[str, Any], dict[str, Any]]
ROUNDS = 2  # of each the best median is kept: what else a machine does only adds
SECONDS = 4.0  # that one runtime may take of a round, where it is slow


def timed(
    recipe: Path, settings: Sequence[str], result: Path, last: Mapping[str, Any], *, repeats: int
) -> Ends:
    """The keys of the first and of the last row that say times, taken in turns. `recipe` says the original."""
    job = prepare(str(recipe), overrides=settings)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        deploy.export_onnx(job.model, job.task.example_inputs, file)
        before: Latencies = []
        after: Latencies = []
        for _ in range(ROUNDS):
            before = _best(before, _original(job.model, file, job.task.example_inputs, repeats))
            where = {"runtime": last["runtime"], "precision": last["precision"]}
            again = measure_model(result, **where, batches=[1], repeats=repeats, progress=False)
            after = _best(after, again["latencies"])
    return _ends(before, after)


def best(before: Ends, again: Ends) -> Ends:
    """Of two timings of the same ends the smaller median of each runtime and precision."""
    pairs = zip(before, again, strict=True)
    original, result = (_best(first["latencies"], second["latencies"]) for first, second in pairs)
    return _ends(original, result)


def _ends(original: Latencies, result: Latencies) -> Ends:
    """The original as it was, in eager PyTorch; the result in what it is quickest."""
    return _keys(original, original[0]), _keys(
        result, min(result, key=lambda entry: float(entry["median_ms"]))
    )


def _original(model: Any, file: Path, inputs: Any, repeats: int) -> Latencies:
    """Eager PyTorch first, then every runtime that takes the float file."""
    found = [_bounded(model, inputs, repeats, "pytorch", "f32")]
    for name in deploy.onnx_runtimes():
        runtime = deploy.registry.get(name).build
        if not runtime.installed():
            continue
        try:
            for precision in runtime.precisions(file):
                found.append(_bounded(file, inputs, repeats, name, precision))
        except (TargetError, DataError) as error:
            print(f"{name} is left out of the original's times: {error}")
    return found


def _bounded(model: Any, inputs: Any, repeats: int, runtime: str, precision: str) -> dict[str, Any]:
    """A latency of as many repeats as are asked for, or as the time allows: an eager model on a busy machine takes long."""
    where = {"runtime": runtime, "precision": precision}
    few = measure.latency(model, inputs, repeats=3, **where)
    more = min(repeats, int(SECONDS * 1000 / few.median_ms))
    return (measure.latency(model, inputs, repeats=more, **where) if more > 3 else few).to_dict()


def _best(before: Latencies, again: Latencies) -> Latencies:
    """Of each runtime and precision the smaller median."""
    if not before:
        return again
    return [
        min(pair, key=lambda entry: float(entry["median_ms"])) for pair in zip(before, again, strict=True)
    ]


def _keys(latencies: Latencies, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "latencies": latencies,
        "latency_ms": entry["median_ms"],
        "runtime": entry["runtime"],
        "precision": entry["precision"],
        "batch": entry["batch"],
    }
