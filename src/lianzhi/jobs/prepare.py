"""From a recipe file to a model and a task in memory, and the run of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lianzhi import models, tasks, train
from lianzhi import recipe as recipes
from lianzhi.errors import RecipeError
from lianzhi.pipeline import Result
from lianzhi.pipeline import run as run_pipeline
from lianzhi.pipeline.opening import open_model, tokenizer_of
from lianzhi.recipe import Recipe, TaskSpec, Train


@dataclass(frozen=True)
class Job:
    """A recipe with its model and its task."""

    name: str
    recipe: Recipe
    model: nn.Module
    task: tasks.Task

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of the model and the data before the work begins."""
        return (*models.remarks(self.model), *self.task.notes)


def prepare(
    path: str, *, overrides: Sequence[str] = (), seed: int | None = None, device: str | None = None
) -> Job:
    """Read a recipe and make what it names. Writes nothing."""
    extra = [f"seed={seed}"] if seed is not None else []
    extra += [f"device={device}"] if device is not None else []
    recipe = recipes.load(path, overrides=[*overrides, *extra])
    if recipe.model is None:
        raise RecipeError(f"{path}: 'model' is missing; name a zoo model, such as model: resnet20")
    if recipe.task is None:
        raise RecipeError(f"{path}: 'task' is missing; name one, such as task: fashion_mnist")
    task = open_task(recipe.task, tokenizer=tokenizer_of(recipe.model))
    model = open_model(recipe.model, seed=recipe.seed, task=task)
    return Job(Path(path).stem, recipe, model, task)


def open_task(spec: TaskSpec, *, tokenizer: str | None = None) -> tasks.Task:
    """Make the task that a recipe names; one on text gets `tokenizer` unless the recipe names another."""
    options = dict(spec.options)
    config = tasks.registry.get(spec.name).config
    if tokenizer is not None and config is not None and "tokenizer" in config.model_fields:
        options.setdefault("tokenizer", tokenizer)
    return tasks.task(spec.name, data=spec.data, **options)


def run(job: Job, *, output: str | None, resume: bool, force: bool, progress: bool) -> Result:
    """Run a prepared job. Without `output` the folder is ``out/<recipe>-<time>``."""
    if output is None:
        if resume:
            raise RecipeError("--resume needs the folder of the run to go on with: add -o FOLDER")
        train.start_processes(job.recipe.device)
        output = train.from_leader(f"out/{job.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    return run_pipeline(
        job.recipe, job.model, job.task, output=output, resume=resume, force=force, progress=progress
    )


def require_training_only(path: str, *, overrides: Sequence[str] = ()) -> None:
    """`lianzhi train` takes recipes of `train` steps only."""
    recipe = recipes.load(path, overrides=overrides)
    other = [recipes.kind_of(step) for step in recipe.steps if not isinstance(step, Train)]
    if other:
        raise RecipeError(
            f"{path}: 'train' only trains, and the recipe has {', '.join(other)}; use: lianzhi compress {path}"
        )
