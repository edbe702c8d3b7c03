"""The step `quantize`: calibrate the model for every target in question; with `method: qat` train it as well.

Quantization is a scheme that stays with the model: after a later step that changed the float weights, and in a run that
goes on, the quantizers are calibrated again. What `where_faster` measured is kept in the step's folder, and not measured again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lianzhi import deploy, files, quantize, train
from lianzhi.pipeline import qat
from lianzhi.pipeline.batches import calibration_batches, validation_metric
from lianzhi.pipeline.rows import batch_of
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.working import working
from lianzhi.quantize import QuantizedModel
from lianzhi.recipe import Quantize
from lianzhi.tasks import Task

Details = dict[str, Any]
SETTINGS = (
    "weights", "activations", "techniques", "group_size", "layers", "ignore", "calibration_table",
    "observer", "observer_options", "reduce_range", "max_drop",
)  # fmt: skip


_OF_CACHE = "the ranges are from a calibration cache of TensorRT, which says neither of which weights nor of which data they are"


def settings(step: Quantize) -> dict[str, Any]:
    """What a step says of quantization, as arguments of `quantize.quantize`."""
    return {name: getattr(step, name) for name in SETTINGS}


def run_quantize(run: Run, state: State, step: Quantize, folder: Path, *, resume: bool) -> Details:
    """Attach the quantization scheme and calibrate it for every target in question."""
    state.quantize = step
    details = _calibrate(run, state, folder)
    if step.training is not None:
        trained = qat.train_quantized(run, state, step.training, folder, resume=resume)
        details |= {
            "quantization": {name: item.report for name, item in state.quantized.items()},
            "training": trained,
        }
    return details


def requantize(run: Run, state: State) -> Details:
    """Quantize the model as it is now; one that had been trained so gets back what it learned."""
    position = next(i for i, step in enumerate(run.recipe.steps) if step is state.quantize)
    details = _calibrate(run, state, run.store.step(position))
    if state.quantize is not None and state.quantize.training is not None:
        qat.restore(run, state, f"step-{position}")
    return details


def quantization_targets(run: Run) -> list[str]:
    """The runtimes to quantize for: the recipe's target, or every installed one that runs ONNX files."""
    if run.recipe.target != "auto":
        return [run.recipe.target]
    return [name for name in deploy.onnx_runtimes() if deploy.registry.get(name).build.installed()]


def reads_samples(task: Task, step: Quantize) -> bool:
    """Whether the step reads calibration samples.

    A table stands for them, unless a technique reads them; floats need none, and use what there is for their report.
    """
    if step.calibration_table is not None:
        return quantize.reads_data(step.techniques)
    return task.has("calibration") or step.weights in quantize.INTEGERS


def _calibrate(run: Run, state: State, folder: Path) -> Details:
    """Calibrate the model as it is now, once a target."""
    step = state.quantize
    assert step is not None
    state.quantized = {}
    for name in quantization_targets(run):
        with working(run, f"quantize for {name}"):
            found = _quantized(run, state, step, name, folder / f"faster-{name}.json")
        if step.calibration_table is not None and quantize.is_tensorrt_cache(step.calibration_table):
            found.report["notes"].append(_OF_CACHE)
        state.quantized[name] = found
    return {"quantization": {name: item.report for name, item in state.quantized.items()}}


def _of_cache(run: Run, state: State, step: Quantize, target: str) -> quantize.CalibrationTable:
    """The ranges that TensorRT's calibration cache has for the model."""
    assert step.calibration_table is not None
    what = {
        name: getattr(step, name) for name in ("weights", "group_size", "layers", "ignore", "reduce_range")
    }
    return quantize.table_from_cache(
        step.calibration_table,
        state.model,
        run.task.example_inputs,
        target=target,
        techniques=step.techniques,
        **what,
    )


def _quantized(run: Run, state: State, step: Quantize, target: str, measured: Path) -> QuantizedModel:
    """The model quantized for a target; `measured` is the file that keeps which layers are float because they are faster so."""
    task, batches = run.task, None
    if reads_samples(task, step):
        batches = [inputs for inputs, _ in calibration_batches(task, step.calibration, step.batch_size)]
    options = {
        **settings(step),
        "target": target,
        "evaluate": None if step.max_drop is None else validation_metric(task),
    }
    if step.calibration_table is not None and quantize.is_tensorrt_cache(step.calibration_table):
        options["calibration_table"] = _of_cache(run, state, step, target)
    if not step.where_faster:
        return quantize.quantize(state.model, task.example_inputs, batches, **options)
    record = None
    if run.leads and measured.is_file():
        record = files.read_json(measured)
    elif run.leads:
        measure = run.recipe.measure
        record = quantize.quantize_where_faster(
            state.model,
            task.example_inputs,
            batches,
            inputs=batch_of(task.example_inputs, measure.choose_batch),
            threads=measure.threads,
            **options,
        ).report["speed"]
        files.write_json(measured, record)
    record = train.from_leader(record)
    options["ignore"] = [*step.ignore, *record["layers"]]
    found = quantize.quantize(state.model, task.example_inputs, batches, **options)
    return quantize.with_speed(found, record)
