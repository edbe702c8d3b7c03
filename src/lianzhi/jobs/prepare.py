"""From a recipe file to a model and a task in memory, and the run of it."""

from __future__ import annotations

import contextlib
import importlib.util
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import artifact, models, tasks, train
from lianzhi import recipe as recipes
from lianzhi.errors import LianzhiError, RecipeError
from lianzhi.pipeline import Result
from lianzhi.pipeline import run as run_pipeline
from lianzhi.recipe import ModelSpec, Recipe, TaskSpec, Train


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
    model = open_model(recipe.model, seed=recipe.seed)
    return Job(Path(path).stem, recipe, model, task)


def open_task(spec: TaskSpec, *, tokenizer: str | None = None) -> tasks.Task:
    """Make the task that a recipe names; one on text gets `tokenizer` unless the recipe names another."""
    options = dict(spec.options)
    config = tasks.registry.get(spec.name).config
    if tokenizer is not None and config is not None and "tokenizer" in config.model_fields:
        options.setdefault("tokenizer", tokenizer)
    return tasks.task(spec.name, data=spec.data, **options)


def tokenizer_of(spec: ModelSpec) -> str | None:
    """Where a recipe's model has its tokenizer: beside its weights."""
    if spec.artifact is not None:
        return spec.artifact if (Path(spec.artifact) / "tokenizer").is_dir() else None
    path = spec.options.get("path")
    return path if spec.file is None and isinstance(path, str) else None


def open_model(spec: ModelSpec, *, seed: int = 0) -> nn.Module:
    """Make the model that a recipe names; fresh weights are drawn from `seed`."""
    if spec.artifact is not None:
        return artifact.load(spec.artifact)
    assert spec.name is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.file is None:
            return models.model(spec.name, weights=spec.weights, num_classes=spec.num_classes, **spec.options)
        classes = {} if spec.num_classes is None else {"num_classes": spec.num_classes}
        make = _from_file(Path(spec.file), spec.name)
        with _blame(Path(spec.file), f"{spec.name}() failed"):
            model = make(**spec.options, **classes)
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{spec.file}: {spec.name}() gave a {type(model).__name__}, not a torch.nn.Module")
    if spec.weights is not None:
        models.load_weights(model, spec.weights)
    return model


def _from_file(file: Path, name: str) -> Any:
    """A function or class from the user's own Python file, which is run for it."""
    if not file.is_file():
        raise RecipeError(f"model.file: {file}: no such file")
    if file.suffix != ".py":
        raise RecipeError(f"model.file: {file} is not a Python file (.py)")
    spec = importlib.util.spec_from_file_location(f"lianzhi_user_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _blame(file, "running it failed"):
        spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RecipeError(
            f"model.name: {file} has no function or class '{name}'; it has {', '.join(found) or 'none'}"
        )
    return getattr(module, name)


@contextlib.contextmanager
def _blame(file: Path, what: str) -> Iterator[None]:
    """Name the line of the user's file in which something went wrong."""
    try:
        yield
    except LianzhiError:
        raise
    except Exception as error:
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename) == file or Path(frame.filename).resolve() == file.resolve():
                line = frame.lineno
        where = f"{file}:{line}" if line else str(file)
        raise RecipeError(
            f"model.file: {where}: {what} ({type(error).__name__}: {error}); correct the file, or the "
            f"options that the recipe gives it"
        ) from error


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
