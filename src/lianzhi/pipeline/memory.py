"""Peak memory of the original and of what ships: measured once, at the end, for the first and the last row of the report.

Of files: both in the runtime that ships, the original as its float file, each loaded and run in a fresh process. Of a
target that takes no files: the tensors of both modules (see `measure.memory`). Never one against the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import deploy, measure
from lianzhi.errors import LianzhiError, TargetError
from lianzhi.graph import device_of, moved
from lianzhi.pipeline.rows import FLOAT, batch_of, fastest
from lianzhi.pipeline.state import Run, State, reading

Rows = list[dict[str, Any]]


def with_memory(run: Run, state: State, rows: Rows, original: nn.Module) -> Rows:
    """The rows, of which the first and the last say `memory_mb`; where it cannot be measured, a note says why.

    Each of the two models gets the inputs that it reads: a step may have left one of other tokens.
    """
    last, now = rows[-1], reading(run, state)
    try:
        if deploy.takes_onnx(last["runtime"]):
            file = run.store.step(len(rows) - 2) / last["decision"]["source"]
            found = [_of_original(run, rows[0], original, last["runtime"]), _of_file(now, file, last)]
        else:
            found = [_of_module(run, original), _of_module(now, state.model)]
    except LianzhiError as error:
        state.note(f"peak memory is not known: {error}")
        return rows
    first, last = (
        {**row, "memory_mb": count / 1e6} for row, count in zip((rows[0], last), found, strict=True)
    )
    return [first, *rows[1:-1], last]


def _of_original(run: Run, row: dict[str, Any], model: nn.Module, runtime: str) -> int:
    """The original's float file in a runtime, in the precision that is fastest there."""
    path = run.store.work / "original" / FLOAT
    if not path.is_file():
        deploy.export_onnx(model, run.task.example_inputs, path)
    entries = [entry for entry in row["latencies"] if entry["runtime"] == runtime]
    if not entries:
        raise TargetError(f"{runtime} does not run the original")
    return _of_file(run, path, fastest(entries, run.recipe.measure.choose_batch))


def _of_file(run: Run, path: Path, entry: dict[str, Any]) -> int:
    options = run.recipe.measure
    return measure.memory(
        path,
        batch_of(run.task.example_inputs, options.choose_batch),
        runtime=entry["runtime"],
        precision=entry["precision"],
        threads=options.threads,
    )


def _of_module(run: Run, model: nn.Module) -> int:
    inputs = batch_of(run.task.example_inputs, run.recipe.measure.choose_batch)
    return measure.memory(model, moved(inputs, device_of(model)))
