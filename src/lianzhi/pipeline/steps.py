"""How each step of a recipe is carried out on the state. One function a step.

A step that changes the structure (`prune`) leaves its plans beside its weights, so that a resumed run
replays the structure and loads the weights. Quantization is a scheme that stays with the model: a later
step trains or prunes the float weights, and the quantizers are calibrated again after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lianzhi import deploy, quantize
from lianzhi.config import Config
from lianzhi.pipeline import qat
from lianzhi.pipeline.batches import calibration_batches, validation_metric
from lianzhi.pipeline.pruning import run_prune
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.training import run_distill, run_sparsify, run_train
from lianzhi.pipeline.working import working
from lianzhi.recipe import Distill, Prune, Quantize, Sparsify, Train

Details = dict[str, Any]


def run_quantize(run: Run, state: State, step: Quantize, folder: Path, *, resume: bool) -> Details:
    """Attach the quantization scheme and calibrate it for every target in question."""
    state.quantize = step
    details = _calibrate(run, state)
    if step.training is not None:
        trained = qat.train_quantized(run, state, step.training, folder, resume=resume)
        details |= {
            "quantization": {name: item.report for name, item in state.quantized.items()},
            "training": trained,
        }
    return details


def requantize(run: Run, state: State) -> Details:
    """Quantize the model as it is now; one that had been trained so gets back what it learned."""
    details = _calibrate(run, state)
    if state.quantize is not None and state.quantize.training is not None:
        position = next(i for i, step in enumerate(run.recipe.steps) if step is state.quantize)
        qat.restore(run, state, f"step-{position}")
    return details


def _calibrate(run: Run, state: State) -> Details:
    """Calibrate the model as it is now, once a target."""
    step = state.quantize
    assert step is not None
    state.quantized = {}
    reports = {}
    for name in quantization_targets(run):
        with working(run, f"quantize for {name}"):
            state.quantized[name] = quantize.quantize(
                state.model,
                run.task.example_inputs,
                [inputs for inputs, _ in calibration_batches(run.task, step.calibration, step.batch_size)],
                target=name,
                weights=step.weights,
                activations=step.activations,
                techniques=step.techniques,
                max_drop=step.max_drop,
                evaluate=None if step.max_drop is None else validation_metric(run.task),
            )
        reports[name] = state.quantized[name].report
    return {"quantization": reports}


def quantization_targets(run: Run) -> list[str]:
    """The runtimes to quantize for: the recipe's target, or every installed one that runs ONNX files."""
    if run.recipe.target != "auto":
        return [run.recipe.target]
    return [name for name in deploy.onnx_runtimes() if deploy.registry.get(name).build.installed()]


RUNNERS: dict[type[Config], Callable[..., Details]] = {
    Train: run_train,
    Sparsify: run_sparsify,
    Prune: run_prune,
    Distill: run_distill,
    Quantize: run_quantize,
}
