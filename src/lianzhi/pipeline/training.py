"""The steps that train: on the task's loss, with a penalty on channels, with a teacher. One function a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lianzhi import prune, train
from lianzhi.codebook.masks import Masks, held
from lianzhi.errors import RecipeError
from lianzhi.pipeline.state import Run, State
from lianzhi.recipe import Distill, ShareWeights, Sparsify, Train
from lianzhi.tasks import Task
from lianzhi.train.options import TrainOptions

Details = dict[str, Any]
AfterStep = Callable[[torch.nn.Module], None]


def run_train(
    run: Run, state: State, step: Train, folder: Path, *, resume: bool, after_step: AfterStep | None = None
) -> Details:
    """Train on the task's own loss. `after_step` runs after each update, before the zeros of weights are restored."""
    return fit(run, state, step, folder, resume=resume, title="train", after_step=after_step)


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

    return fit(run, state, step, folder, resume=resume, title=f"sparsify ({step.method})", step=penalised)


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


def learns_from(step: Any) -> str | None:
    """The teacher that a step names, if it learns from one."""
    if isinstance(step, ShareWeights):
        return step.teacher if step.distill else None
    return step.teacher if isinstance(step, Distill) else None


def masks_of(state: State, model: torch.nn.Module) -> Masks | None:
    """Masks that keep the zeros of a model whose weights were pruned."""
    return held(model, state.sparse) if state.sparse else None


def holding(masks: Masks | None, after_step: AfterStep | None) -> AfterStep | None:
    """What runs after each update: `after_step`, then the masks, if there are any."""
    if masks is None:
        return after_step

    def both(model: torch.nn.Module) -> None:
        if after_step is not None:
            after_step(model)
        masks.apply_(model)

    return both


def fit(
    run: Run,
    state: State,
    options: TrainOptions,
    folder: Path,
    *,
    resume: bool,
    title: str,
    step: Any = None,
    after_step: AfterStep | None = None,
) -> Details:
    """Train the model of a state; where its weights were pruned before, masks keep their zeros."""
    masks = masks_of(state, state.model)
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
        after_step=holding(masks, after_step),
    )
    if masks is not None:
        masks.release()
    return {"history": history.to_dict()}
