"""The steps that train: on the task's loss, with a penalty on channels, with a teacher. One function a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lianzhi import artifact, distill, prune, train
from lianzhi.errors import RecipeError
from lianzhi.pipeline.state import ORIGINAL, Run, State
from lianzhi.recipe import Distill, Sparsify, Train
from lianzhi.tasks import Task
from lianzhi.train.options import TrainOptions

Details = dict[str, Any]


def run_train(run: Run, state: State, step: Train, folder: Path, *, resume: bool) -> Details:
    """Train on the task's own loss."""
    return _fit(run, state, step, folder, resume=resume, title="train")


def run_sparsify(run: Run, state: State, step: Sparsify, folder: Path, *, resume: bool) -> Details:
    """Train with a penalty that drives channels to zero."""
    plain, penalty = train.default_step(run.task, step), penalty_of(step, state.model, run.task)

    def penalised(model: torch.nn.Module, batch: Any) -> dict[str, Any]:
        result, extra = plain(model, batch), penalty()
        return {
            "loss": result["loss"] + extra,
            "terms": {
                **result.get("terms", {}),
                "task": result["loss"].detach(),
                step.method: extra.detach(),
            },
        }

    return _fit(run, state, step, folder, resume=resume, title=f"sparsify ({step.method})", step=penalised)


def penalty_of(step: Sparsify, model: torch.nn.Module, task: Task) -> Callable[[], Tensor]:
    """The penalty of a model as a function of nothing; refuses a model that has nothing to penalise."""
    if step.method == "group_lasso":
        slices = prune.channel_slices(model, task.example_inputs)
        if not slices:
            raise RecipeError("the model has no channel groups to sparsify; lianzhi inspect says why")
        return lambda: prune.group_lasso(slices, step.coefficient)
    scales = prune.bn_scales(model)
    if not scales:
        raise RecipeError(
            "the model has no BatchNorm with scales to sparsify; use method: group_lasso, or drop the step, "
            "and prune by a criterion on weights (criterion: l1)"
        )
    return lambda: prune.bn_l1(scales, step.coefficient)


def run_distill(run: Run, state: State, step: Distill, folder: Path, *, resume: bool) -> Details:
    """Train with a teacher."""
    method = distill.methods.registry.get(step.method)
    teacher = state.teacher if step.teacher == ORIGINAL else artifact.load(step.teacher)
    make_step = method.build(teacher, temperature=step.temperature, alpha=step.alpha, loss=run.task.loss)
    return _fit(run, state, step, folder, resume=resume, title=f"distill ({step.method})", step=make_step)


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
