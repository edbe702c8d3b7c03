"""Compress an ONNX file made elsewhere: read data, quantize for a target, write the file and its report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lianzhi import artifact, deploy, files, measure, quantize, tasks
from lianzhi.errors import DataError, RecipeError
from lianzhi.jobs.onnx_data import Calibration, DataOptions, from_path, from_task, preprocess_beside
from lianzhi.report import FORMAT

AUTO = "auto"
OWNED = frozenset({"model.onnx", "model.onnx.data", "report.json", "preprocess.json", artifact.CACHE})


@dataclass(frozen=True)
class OnnxResult:
    """What was written, and the report of `quantize.quantize_onnx`."""

    path: Path | None
    data: str
    report: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"path": None if self.path is None else str(self.path), "data": self.data, **self.report}

    def __str__(self) -> str:
        if self.path is None:
            names = ", ".join(self.report["targets"])
            return f"{self.report['source']}: {self.data}, {self.report['batches']} batches; for {names}; nothing is written"
        return quantize.report_table(self.report) + (f"\n\nfile  {self.path}" if self.path else "")


def compress_onnx(
    source: Path,
    *,
    output: str | None,
    target: str | None = None,
    data: str | None = None,
    task: str | None = None,
    task_options: dict[str, Any] | None = None,
    options: DataOptions | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
    force: bool = False,
    dry_run: bool = False,
    timed: bool = True,
    ignore: Sequence[str] = (),
    observer: str | None = None,
) -> OnnxResult:
    """Quantize `source` into the folder `output`; with target ``auto`` for the fastest runtime that is installed.

    For ``tensorrt`` a calibration cache is written beside the file. With `max_drop` layers return to float until the
    file agrees with the float file on held-out calibration data.

    Raises `RecipeError` where data or output are not given, and what `quantize.quantize_onnx` raises.
    """
    if data is None and task is None:
        raise RecipeError(
            f"{source}: quantization needs calibration data; add --data DIR, or --task NAME --data DIR"
        )
    if output is None and not dry_run:
        raise RecipeError(f"{source}: where to? Add -o FOLDER")
    names = _targets(target or AUTO)
    observer = observer or quantize.DEFAULT_OBSERVER
    for name in names:
        quantize.check_options(target=name, observer=observer)
    if output is not None and not force:
        files.require_empty(output)
    calibration = _read(source, data, task, task_options or {}, options or DataOptions())
    if dry_run:
        facts = {"source": str(source), "targets": names, "batches": len(calibration.batches)}
        facts |= {"observer": observer, "ignore": list(ignore)}
        return OnnxResult(None, calibration.found, {"dry_run": True, **facts})
    assert output is not None
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        made = [
            (
                Path(folder) / f"{name}.onnx",
                quantize.quantize_onnx(
                    source, calibration.batches, target=name, output=Path(folder) / f"{name}.onnx",
                    measure=timed, max_drop=max_drop, threads=threads, ignore=ignore, observer=observer,
                ),
            )
            for name in names
        ]  # fmt: skip
        file, report = min(made, key=lambda item: _milliseconds(item[1]))
        return _write(file, report, made, calibration, Path(output), force=force)


def _targets(target: str) -> list[str]:
    if target != AUTO:
        if not deploy.registry.get(target).build.takes_onnx:
            raise RecipeError(
                f"target '{target}' takes no ONNX file; choose {', '.join(deploy.onnx_targets())}"
            )
        return [target]
    return [name for name in deploy.onnx_runtimes() if deploy.registry.get(name).build.installed()]


def _read(
    source: Path, data: str | None, task: str | None, task_options: dict[str, Any], options: DataOptions
) -> Calibration:
    ports = deploy.load(source, runtime="onnxruntime").inputs
    if task is not None:
        calibration = from_task(tasks.task(task, data=data, **task_options), ports, options)
    else:
        beside = preprocess_beside(source)
        if beside is not None and options.mean is None and options.std is None:
            options = replace(options, mean=beside.mean, std=beside.std)
            if options.shape is None and len(ports[0].shape) == 4:
                options = replace(options, shape=(beside.channels, *beside.size))
        calibration = from_path(Path(str(data)), ports, options)
    if not calibration.batches:
        raise DataError(f"{data or task}: holds no samples; give calibration data")
    return calibration


def _milliseconds(report: dict[str, Any]) -> float:
    """What a call takes with the file that was kept."""
    timings = [item for item in report.get("attempts", []) if "ratio" in item]
    if not timings:
        return float("inf")
    if report["worth_it"]:
        return float(timings[-1]["int8_ms"])
    return float(timings[0]["float_ms"])


def _write(
    file: Path,
    report: dict[str, Any],
    made: list[tuple[Path, dict[str, Any]]],
    calibration: Calibration,
    output: Path,
    *,
    force: bool,
) -> OnnxResult:
    report["output"] = str(output / "model.onnx")
    if len(made) > 1:
        report["targets"] = {item["target"]: round(_milliseconds(item), 3) for _, item in made}
    whole = {
        "format": FORMAT,
        "decision": {"runtime": report["target"], "precision": deploy.held_precision(file)},
        "data": calibration.found,
        "quantization": report,
        "environment": measure.environment(),
    }
    with files.whole_folder(output, overwrite=force, owned=OWNED) as folder:
        deploy.copy_onnx(file, folder / "model.onnx")
        files.write_json(folder / "report.json", files.finite(whole))
        if report["target"] == "tensorrt" and (amax := quantize.file_amax(folder / "model.onnx")):
            quantize.write_tensorrt_cache(folder / artifact.CACHE, amax)
        if calibration.preprocess is not None:
            files.write_json(folder / "preprocess.json", calibration.preprocess.to_dict())
    return OnnxResult(output / "model.onnx", calibration.found, report)
