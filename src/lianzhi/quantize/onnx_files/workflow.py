"""Quantize a float ONNX file: prepare, place, calibrate, insert, check, time, write."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lianzhi import deploy, files
from lianzhi.deploy.session import Session
from lianzhi.errors import RecipeError, did_you_mean
from lianzhi.quantize.batches import samples
from lianzhi.quantize.onnx_files.agreement import hold_out, metric_of
from lianzhi.quantize.onnx_files.job import TECHNIQUES, Bar, Job
from lianzhi.quantize.onnx_files.prepare import side_paths
from lianzhi.quantize.options import DEFAULT_OBSERVER


def quantize_onnx(
    source: str | os.PathLike[str],
    calibration: Iterable[Any],
    *,
    target: str,
    output: str | os.PathLike[str],
    measure: bool = True,
    techniques: Sequence[str] = TECHNIQUES,
    max_drop: float | None = None,
    evaluate: Callable[[Session], float] | None = None,
    observer: str = DEFAULT_OBSERVER,
    observer_options: dict[str, Any] | None = None,
    reduce_range: bool | None = None,
    ignore: Sequence[str] = (),
    threads: int | None = None,
) -> dict[str, Any]:
    """Quantize a float ONNX file, whoever made it, and write `output`; return the report.

    ```python
    report = quantize.quantize_onnx("detector.onnx", batches, target="onnxruntime", output="detector-int8.onnx")
    report["worth_it"], report["left_float"]
    ```

    `calibration` holds dicts of arrays by input name, or arrays for a file of one input. With `measure` int8 and
    float are timed in turns on the target, if that runtime is here; where int8 is slower, only the
    convolutions are quantized, then only the matrix products, and at last the float file is written, and the
    report has ``worth_it: False`` with the ``reason``. `techniques` are of "equalization" and "bias_correction".
    `ignore` holds patterns of node names that stay float. What cannot be quantized is in ``left_float`` with the reason.

    With `max_drop` layers return to float, the worst first, until the metric falls by no more; ``report["control"]`` has
    every step. `evaluate` is the metric, a function of a loaded file (`deploy.Session`), more is better. Without it the
    metric is the agreement with the float file on a quarter of the calibration data, which then set no ranges.

    Raises `DataError` for calibration data that are empty, not finite or of the wrong shape, `TargetError` for
    a file that is not ONNX or is quantized already, `GraphError` for weights that are not finite, `RecipeError` for an option that is not offered. Nothing is
    written then.
    """
    start = time.perf_counter()
    _check(techniques, max_drop)
    job = Job(
        Path(source), target, observer=observer, options=observer_options or {}, reduce_range=reduce_range,
        techniques=techniques, ignore=ignore, threads=threads,
    )  # fmt: skip
    job.check_output(Path(output))
    batches = job.read(calibration)
    used, bar = batches, None
    if evaluate is not None:
        bar = Bar(max_drop, lambda session: float(evaluate(session)), "evaluate's value")
    elif max_drop is not None:
        used, held = hold_out(batches, job.exact())
        bar = Bar(max_drop, *metric_of(job.float_proto, job.exact(), held))
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        report, file = job.best(used, Path(folder), bar, timed=measure)
        _write(job, file, Path(output))
    report |= {
        "source": str(source),
        "output": str(output),
        "bytes": {"float": _bytes(Path(source)), "output": _bytes(Path(output))},
        "calibration": {"batches": len(used), "samples": samples(used)},
        "seconds": time.perf_counter() - start,
    }
    return report


def _check(techniques: Sequence[str], max_drop: float | None) -> None:
    """Refuse options that nobody offers."""
    for name in [techniques] if isinstance(techniques, str) else techniques:
        if name not in TECHNIQUES:
            raise RecipeError(
                f"techniques: '{name}' is not offered for ONNX files{did_you_mean(str(name), TECHNIQUES)}"
            )
    if isinstance(techniques, str):
        raise RecipeError(f"techniques: write a list of names, ['{techniques}']")
    if max_drop is not None and not 0 <= max_drop < float("inf"):
        raise RecipeError(f"max_drop: {max_drop} must be 0 or more: how much the metric may fall")


def _write(job: Job, file: Path | None, output: Path) -> None:
    """The chosen file, or the source as it is."""
    import onnx

    if file is not None:
        deploy.write_onnx(onnx.load(str(file)), output)
    elif side_paths(job.source):
        deploy.write_onnx(job.float_proto, output)
    else:
        files.write_bytes(output, files.read_bytes(job.source, limit=1 << 31))


def _bytes(path: Path) -> int:
    """Of the file and those beside it that hold its weights."""
    return sum(item.stat().st_size for item in (path, *side_paths(path)))
