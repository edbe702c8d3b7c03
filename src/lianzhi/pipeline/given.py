"""A model that a recipe takes from an artifact: it has the task's classes, and reads the tokens that the task gives it."""

from __future__ import annotations

from typing import Any

from lianzhi.errors import DataError
from lianzhi.pipeline.opening import tokenizer_of
from lianzhi.pipeline.state import Run
from lianzhi.pipeline.teachers import RENEW, check_labels
from lianzhi.tasks.same_tokens import require_same_tokens


def check_given(run: Run) -> None:
    """Refuse an artifact that calls the task's classes otherwise, or whose own tokenizer is another than the task's.

    The first row of the report would be of mixed classes or of ids that mean other words, and so would what a student
    learns from it.

    Raises:
        RecipeError: its classes have other names or another order, or it reads other tokens.
    """
    spec = run.recipe.model
    if spec is None or spec.artifact is None:
        return
    if spec.head is None:
        check_labels(run.task, spec.artifact, f"the model {spec.artifact}", RENEW)
    place = tokenizer_of(spec)
    if place is not None:
        require_same_tokens(run.task, place, "the model")


def check_outputs(run: Run, outputs: Any) -> None:
    """Refuse a classifier out of an artifact that has more classes than the task, by the shape of its outputs.

    Models of other origin may: those of the zoo come with the classes that they were published with.
    """
    spec, classes = run.recipe.model, run.task.num_classes
    if spec is None or spec.artifact is None or classes is None or outputs is None or len(outputs) != 2:
        return
    if outputs[1] > classes:
        raise DataError(
            f"the model {spec.artifact} gives {outputs[1]} outputs, and the task '{run.task.name}' has {classes} "
            f"classes; give data of the same classes, or the model a last layer for the task's (head: new)"
        )
