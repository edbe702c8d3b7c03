"""The student of a `distill` step: the model as it is now, some of its layers, or another one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lianzhi.distill.layer_map import LayerMap
from lianzhi.distill.transformer import layers_of
from lianzhi.errors import GraphError, RecipeError
from lianzhi.graph.shorten import shortened
from lianzhi.models import renew
from lianzhi.pipeline.opening import open_model, tokenizer_of
from lianzhi.pipeline.state import Run
from lianzhi.pipeline.teachers import RENEW, check_labels
from lianzhi.recipe import StudentSpec
from lianzhi.tasks import Task
from lianzhi.tasks.same_tokens import require_same_tokens


def make_student(run: Run, model: nn.Module, spec: StudentSpec) -> nn.Module:
    """The student that a recipe names, made anew; `model` is left as it is.

    Raises:
        GraphError: the model has no stack of layers.
        RecipeError: it has not so many, or the student reads other tokens or has other classes than the task.
    """
    if spec.is_another:
        classes = spec.num_classes or run.task.num_classes
        takes = spec.artifact is None and spec.file is None and spec.head is None
        named = spec.model_copy(update={"num_classes": classes}) if takes else spec
        _check_reading(run.task, spec)
        return open_model(named, seed=run.recipe.seed, task=run.task)
    student = copy.deepcopy(model)
    if spec.layers is not None:
        names = _layers(student)
        kept = chosen_layers(spec, len(names))
        student = shortened(student, [name for number, name in enumerate(names, 1) if number not in kept])
    if spec.init == "scratch":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.recipe.seed)
            renew(student)
    return student


def _layers(model: nn.Module) -> list[str]:
    """The names of the layers that `layers` counts."""
    try:
        return layers_of(model)
    except GraphError as error:
        reason = str(error).partition(";")[0]
        raise GraphError(
            f"student.layers counts the layers of one stack, and {reason}; give a student of its own (student: {{name: …}})"
        ) from None


def _check_reading(task: Task, spec: StudentSpec) -> None:
    """A student that was trained before reads the task's tokens, and has its classes in order, or a new head."""
    if spec.artifact is not None and spec.head is None:
        check_labels(task, spec.artifact, f"the student {spec.artifact}", RENEW)
    place = tokenizer_of(spec)
    if place is not None:
        require_same_tokens(task, place, "the student", more=" (a teacher reads with its own)")


def chosen_layers(spec: StudentSpec, depth: int) -> list[int]:
    """Which of `depth` layers stay, from 1.

    >>> chosen_layers(StudentSpec(layers=4), 6), chosen_layers(StudentSpec(layers=2, init="first"), 6)
    ([2, 3, 5, 6], [1, 2])
    """
    wanted = spec.layers
    assert wanted is not None
    numbers = list(wanted) if isinstance(wanted, tuple) else []
    most = wanted if isinstance(wanted, int) else numbers[-1]
    if most > depth:
        raise RecipeError(f"student.layers: {wanted}, and the model has {depth} layers; give at most so many")
    if numbers:
        return numbers
    assert isinstance(wanted, int)
    if spec.init == "first":
        return list(range(1, wanted + 1))
    return [teacher for _, teacher in LayerMap.uniform(wanted, depth).pairs]
