"""Batches that steps read beside training: calibration samples, and training images for BatchNorm statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from lianzhi import measure
from lianzhi.errors import DataError
from lianzhi.pipeline.state import Run
from lianzhi.tasks import Task
from lianzhi.tasks.batch import cut


def require_calibration(task: Task) -> None:
    """Refuse a task without calibration samples."""
    if not task.has("calibration"):
        raise DataError(
            f"task '{task.name}' has no calibration split; give calibration=…, cut from the training data"
        )


def calibration_batches(task: Task, samples: int, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """(inputs, labels) of the calibration split (never of validation or test), `samples` at most.

    >>> import torch
    >>> task = Task(train=[(torch.zeros(4, 2), torch.arange(4) % 2)], calibration=[(torch.ones(4, 2), torch.arange(4) % 2)])
    >>> [(len(inputs), labels.tolist()) for inputs, labels in calibration_batches(task, 3, 4)]
    [(3, [0, 1, 0])]
    """
    left = samples
    for batch in task.batches("calibration", batch_size):
        yield cut(batch.inputs, slice(left)), cut(batch.labels, slice(left))
        left -= len(batch)
        if left <= 0:
            return


def on_validation(task: Task) -> Callable[[Any], float]:
    """The metric of a module on the validation part, measured by this process alone: who decides by it is the leader."""
    return lambda module: measure.evaluate(module, task, split="validation", progress=False, alone=True).value


def validation_metric(task: Task) -> Callable[[Any], float]:
    """The metric of a module on the validation cut, by which budgets are decided.

    Raises `DataError` for a task whose validation part is the one that is reported, or that has none.
    """
    if not _has_cut(task):
        raise DataError(
            f"task '{task.name}' has no validation cut to measure a drop on beside the split that it reports; "
            "give validation=… cut from the training data, and test=…, or leave max_drop out"
        )
    return on_validation(task)


def evaluator(task: Task) -> Callable[[nn.Module], float]:
    """The task's first metric on the validation cut, by which sensitivities are measured.

    Raises `DataError` for a task whose validation part is the one that is reported, or that has none.
    """
    if not _has_cut(task):
        raise DataError(
            f"task '{task.name}' has no validation cut beside the split that it reports, and what is measured "
            "decides what is pruned; give validation=… cut from the training data, and test=…"
        )
    return lambda model: measure.evaluate(model, task, split="validation", alone=True).value


def _has_cut(task: Task) -> bool:
    return task.has("validation") and task.reported != "validation"


def training_inputs(run: Run, batches: int) -> Iterator[Any]:
    """Inputs of the first batches of the training part, in the order of the run's seed."""
    stream = run.task.batches("train", 128, epoch=0, seed=run.recipe.seed)
    for _, batch in zip(range(batches), stream, strict=False):
        yield batch.inputs
