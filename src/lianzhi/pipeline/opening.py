"""The model that a recipe names: out of the zoo, an artifact, or a Python file of the user's own."""

from __future__ import annotations

import contextlib
import importlib.util
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lianzhi import artifact, models
from lianzhi.errors import LianzhiError, RecipeError
from lianzhi.pipeline.heads import with_new_head
from lianzhi.recipe import ModelSpec
from lianzhi.tasks import Task, TextPreprocess


def tokenizer_of(spec: ModelSpec) -> str | None:
    """Where a recipe's model has its tokenizer: beside its weights."""
    if spec.artifact is not None:
        return spec.artifact if (Path(spec.artifact) / "tokenizer").is_dir() else None
    path = spec.options.get("path")
    return path if spec.file is None and isinstance(path, str) else None


def open_model(spec: ModelSpec, *, seed: int = 0, task: Task | None = None) -> nn.Module:
    """Make the model that a recipe names; fresh weights are drawn from `seed`. One over words takes those of the task."""
    model = _opened(spec, seed=seed, task=task)
    if spec.head is None:
        return model
    if task is None:
        raise RecipeError("head: new is for the classes of a task; give a recipe with one")
    return with_new_head(model, task, seed=seed)


def _opened(spec: ModelSpec, *, seed: int, task: Task | None) -> nn.Module:
    if spec.artifact is not None:
        return artifact.load(spec.artifact)
    assert spec.name is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.file is None:
            options = {**options_of_task(spec.name, task), **spec.options}
            return models.model(spec.name, weights=spec.weights, num_classes=spec.num_classes, **options)
        classes = {} if spec.num_classes is None else {"num_classes": spec.num_classes}
        make = _from_file(Path(spec.file), spec.name)
        with _blame(Path(spec.file), f"{spec.name}() failed"):
            model = make(**spec.options, **classes)
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{spec.file}: {spec.name}() gave a {type(model).__name__}, not a torch.nn.Module")
    if spec.weights is not None:
        models.load_weights(model, spec.weights)
    return model


def options_of_task(name: str, task: Task | None) -> dict[str, Any]:
    """The options of a model that the task's texts decide."""
    if task is None or not isinstance(task.preprocess, TextPreprocess):
        return {}
    preprocess = task.preprocess
    return models.word_options(name, preprocess.vocabulary, pairs="token_type_ids" in preprocess.inputs)


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
