"""The step `quantize: {method: qat}`: calibrate for every target, train what came of it, once a grid.

The teacher is the float model as it is at this step. What was trained is kept in the work folder a target, so
that a run that is killed afterwards goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import distill, quantize, train
from lianzhi.codebook.masks import Masks, held, names_of, weights_of
from lianzhi.graph import TracedModule
from lianzhi.pipeline.state import Run, State
from lianzhi.quantize import QuantizedModel
from lianzhi.quantize.qat import freeze_norms_, unfolded_norms
from lianzhi.recipe.qat import QAT
from lianzhi.train.loop import place
from lianzhi.train.schedules import when
from lianzhi.train.validation import validate

UPDATES = "updates"  # how many updates a module with unfolded BatchNorms has seen; its checkpoint holds it


def train_quantized(
    run: Run, state: State, options: QAT, folder: Path, *, resume: bool
) -> dict[str, dict[str, Any]]:
    """Train `state.quantized` for every target; return the history of each training by target."""
    histories: dict[str, dict[str, Any]] = {}
    done: list[tuple[QuantizedModel, TracedModule | None]] = []
    for name, calibrated in state.quantized.items():
        twin = next(
            (index for index, item in enumerate(done) if quantize.same_grid(item[0], calibrated)), None
        )
        if twin is None:
            module, history = _train(
                run, state, calibrated, options, folder / f"train-{name}", name, resume=resume
            )
            done.append((calibrated, module))
            histories[name] = history
        else:
            module = done[twin][1]
        if module is not None:
            state.quantized[name] = quantize.trained(calibrated, module)
        if run.leads:
            run.store.save_state(_saved(folder.name, name), state.quantized[name].model)
    train.barrier()
    return histories


def restore(run: Run, state: State, step_name: str) -> None:
    """Put what was trained in this step back into the models that were calibrated again."""
    for name, calibrated in state.quantized.items():
        run.store.load_state(_saved(step_name, name), calibrated.model)


def _saved(step_name: str, target: str) -> str:
    return f"{step_name}/qat-{target}"


def _train(
    run: Run,
    state: State,
    calibrated: QuantizedModel,
    options: QAT,
    directory: Path,
    target: str,
    *,
    resume: bool,
) -> tuple[TracedModule | None, dict[str, Any]]:
    """Train one model. No module comes back where no epoch was better than calibration alone."""
    module = quantize.make_trainable(calibrated, lsq=options.lsq, channels=options.channels)
    step, after_step = _frozen_norms(module, _step(run, state, options), options, run)
    masks = held_zeros(state, module)

    def after(model: nn.Module) -> None:
        if after_step is not None:
            after_step(model)
        if masks is not None:
            masks.apply_(model)

    history = train.fit(
        module,
        run.task,
        options,
        step=step,
        after_step=after,
        seed=run.recipe.seed,
        directory=directory,
        resume=resume,
        progress=run.progress and run.leads,
        title=f"quantize for {target} (qat)",
        device=run.recipe.device,
    )
    if masks is not None:
        masks.release()
    record = history.to_dict()
    if options.keep != "best" or history.best_value is None:
        return module, record
    before = _validation(run, calibrated.model, options)
    record["before"] = before
    if history.best_value >= before:
        return module, record
    state.note(
        f"training for {target} did not help: {before:.4f} on validation as calibrated, {history.best_value:.4f} at "
        f"best in training; the calibrated model is kept (a smaller lr may do better)"
    )
    return None, record


def held_zeros(state: State, module: nn.Module) -> Masks | None:
    """Masks for the zeros of what was pruned. A tied weight may have another of its names in the module."""
    if not state.sparse:
        return None
    others = [names for names in names_of(state.model).values() if state.sparse.isdisjoint(names)]
    whole = {name for names in others for name in names}
    return held(module, [name for name in weights_of(module) if name not in whole])


def _validation(run: Run, model: nn.Module, options: QAT) -> float:
    device = place(run.recipe.device)
    model.to(device)
    with torch.no_grad():
        value = validate(model, run.task, batch_size=options.batch_size, device=device)
    model.to("cpu")
    return float(train.from_leader(value))


def _step(run: Run, state: State, options: QAT) -> train.Step:
    """The task's loss, and by default the float model's outputs."""
    if not options.distill:
        return train.default_step(run.task, options)
    return distill.methods.kd.make_step(
        state.model,
        temperature=options.temperature,
        alpha=options.alpha,
        loss=train.task_loss(run.task, options),
    )


def _frozen_norms(
    module: TracedModule, step: train.Step, options: QAT, run: Run
) -> tuple[train.Step, Callable[[nn.Module], None] | None]:
    """Freeze the statistics of unfolded BatchNorms when it is time, in a resumed run too."""
    if not unfolded_norms(module):
        return step, None
    steps = run.task.steps("train", options.batch_size) / options.accumulate
    limit = when(options.freeze_bn, round(options.epochs * steps), round(steps))
    if limit <= 0:
        freeze_norms_(module)
        return step, None
    module.register_buffer(UPDATES, torch.zeros((), dtype=torch.int64))

    def timed(model: nn.Module, batch: Any) -> dict[str, Any]:
        if int(module.get_buffer(UPDATES)) >= limit and unfolded_norms(module):
            freeze_norms_(module)
        return step(model, batch)

    def count(model: nn.Module) -> None:
        module.get_buffer(UPDATES).add_(1)

    return timed, count
