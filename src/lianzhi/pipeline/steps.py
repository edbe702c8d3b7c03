"""How each step of a recipe is carried out on the state. One function a step.

A step that changes the structure (`prune`) leaves its plan beside its weights, so that a resumed run
replays the structure and loads the weights. Quantization is a scheme that stays with the model: a later
step trains or prunes the float weights, and the quantizers are calibrated again after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lianzhi import artifact, deploy, distill, files, graph, prune, quantize, train
from lianzhi.config import Config
from lianzhi.errors import RecipeError
from lianzhi.pipeline.state import ORIGINAL, Run, State
from lianzhi.recipe import Distill, Prune, Quantize, Sparsify, Train
from lianzhi.train.options import TrainOptions

PLAN = "plan.json"
Details = dict[str, Any]


def run_train(run: Run, state: State, step: Train, folder: Path, *, resume: bool) -> Details:
    """Train on the task's own loss."""
    return _fit(run, state, step, folder, resume=resume, title="train")


def run_sparsify(run: Run, state: State, step: Sparsify, folder: Path, *, resume: bool) -> Details:
    """Train with an L1 penalty on the BatchNorm scales."""
    scales = prune.bn_scales(state.model)
    if not scales:
        raise RecipeError(
            "sparsify: the model has no BatchNorm with scales to sparsify; drop the step, "
            "and prune by a criterion on weights (criterion: l1)"
        )
    plain = train.default_step(run.task, step)

    def penalised(model: torch.nn.Module, batch: Any) -> dict[str, Any]:
        result = plain(model, batch)
        penalty = step.coefficient * prune.bn_l1(scales)
        return {
            "loss": result["loss"] + penalty,
            "terms": {**result.get("terms", {}), "task": result["loss"].detach(), "l1": penalty.detach()},
        }

    return _fit(run, state, step, folder, resume=resume, title="sparsify", step=penalised)


def run_distill(run: Run, state: State, step: Distill, folder: Path, *, resume: bool) -> Details:
    """Train with a teacher."""
    method = distill.methods.registry.get(step.method)
    teacher = state.teacher if step.teacher == ORIGINAL else artifact.load(step.teacher)
    make_step = method.build(teacher, temperature=step.temperature, alpha=step.alpha, loss=run.task.loss)
    return _fit(run, state, step, folder, resume=resume, title=f"distill ({step.method})", step=make_step)


def run_prune(run: Run, state: State, step: Prune, folder: Path, *, resume: bool) -> Details:
    """Remove channels by a plan, prove that the surgery is exact, and re-estimate BatchNorm if asked."""
    saved = folder / PLAN
    if resume and saved.is_file():
        plan = prune.Plan.from_json(saved.read_text(), state.model, run.task.example_inputs)
    else:
        plan = make_plan(run, state, step)
    before = graph.macs(graph.capture(state.model, run.task.example_inputs))
    error = plan.verify()
    state.model = plan.apply()
    if run.leads:
        files.write_text(saved, plan.to_json())
    if step.reestimate:
        prune.reestimate(state.model, _training_inputs(run, step.reestimate))
    after = graph.macs(graph.capture(state.model, run.task.example_inputs))
    state.add_layers(plan.layers)
    for name, reason in plan.unprunable:
        state.note(f"not prunable: {name} ({reason})")
    return {
        "verified": error,
        "macs_before": before,
        "macs_after": after,
        "result": plan.result_kind,
        "layers": plan.layers,
    }


def make_plan(run: Run, state: State, step: Prune) -> prune.Plan:
    """The plan of a `Prune` step for the model as it is."""
    return prune.plan(
        state.model,
        run.task.example_inputs,
        **step.budget(),
        criterion=step.criterion,
        criterion_options={**step.criterion_options},
        aggregate=step.aggregate,
        normalize=step.normalize,
        granularity=step.granularity,
        scope=step.scope,
        round_to=step.round_to,
        min_channels=step.min_channels,
        max_layer_ratio=step.max_layer_ratio,
        ignore=step.ignore,
    )


def run_quantize(run: Run, state: State, step: Quantize, folder: Path, *, resume: bool) -> Details:
    """Attach the quantization scheme and calibrate it for every target in question."""
    state.quantize = step
    return requantize(run, state)


def requantize(run: Run, state: State) -> Details:
    """Calibrate the model as it is now, once a target."""
    step = state.quantize
    assert step is not None
    state.quantized = {}
    reports = {}
    for name in quantization_targets(run):
        state.quantized[name] = quantize.quantize(
            state.model,
            run.task.example_inputs,
            list(_calibration_inputs(run, step)),
            target=name,
            weights=step.weights,
            activations=step.activations,
            techniques=step.techniques,
        )
        reports[name] = state.quantized[name].report
    return {"quantization": reports}


def quantization_targets(run: Run) -> list[str]:
    """The runtimes to quantize for: the recipe's target, or every installed one that runs ONNX files."""
    if run.recipe.target != "auto":
        return [run.recipe.target] if run.recipe.target != "pytorch" else ["onnxruntime"]
    return [name for name in deploy.onnx_runtimes() if deploy.registry.get(name).build.installed()]


RUNNERS: dict[type[Config], Callable[..., Details]] = {
    Train: run_train,
    Sparsify: run_sparsify,
    Prune: run_prune,
    Distill: run_distill,
    Quantize: run_quantize,
}


def _fit(
    run: Run, state: State, options: TrainOptions, folder: Path, *, resume: bool, title: str, step: Any = None
) -> Details:
    history = train.fit(
        state.model,
        run.task,
        options,
        step=step,
        seed=run.recipe.seed,
        directory=folder / "train",
        resume=resume,
        progress=run.progress and run.leads,
        title=title,
        device=run.recipe.device,
    )
    return {"history": history.to_dict()}


def _training_inputs(run: Run, batches: int) -> Iterator[Any]:
    stream = run.task.batches("train", 128, epoch=0, seed=run.recipe.seed)
    for _, batch in zip(range(batches), stream, strict=False):
        yield batch.inputs


def _calibration_inputs(run: Run, step: Quantize) -> Iterator[Any]:
    """Batches of the calibration split (never of validation or test), `step.calibration` samples at most."""
    left = step.calibration
    for batch in run.task.batches("calibration", step.batch_size):
        if left <= 0:
            return
        yield _first(batch.inputs, left)
        left -= len(batch.labels)


def _first(inputs: Any, count: int) -> Any:
    if isinstance(inputs, dict):
        return {key: value[:count] for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(value[:count] for value in inputs)
    return inputs[:count]
