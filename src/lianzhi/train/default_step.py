"""The step that is used when none is given: the task's own loss, with label smoothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from lianzhi.errors import RecipeError
from lianzhi.tasks.outputs import logits_of
from lianzhi.tasks.text_preprocess import TextPreprocess
from lianzhi.train.options import TrainOptions

if TYPE_CHECKING:
    from lianzhi.tasks import Batch, Task

Step = Callable[[nn.Module, "Batch"], dict[str, Any]]


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of tensors, or a dict of keyword tensors."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def smooth(loss: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Label smoothing (1512.00567) on top of a cross entropy: (1 - s) · loss + s · mean(-log p).

    >>> import torch
    >>> logits, labels = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    >>> smoothed = smooth(functional.cross_entropy(logits, labels), logits, 0.1)
    >>> torch.allclose(smoothed, functional.cross_entropy(logits, labels, label_smoothing=0.1))
    True
    """
    uniform = -functional.log_softmax(logits.float(), dim=1).mean()
    return (1 - smoothing) * loss + smoothing * uniform


def task_loss(task: Task, options: TrainOptions) -> Callable[[Any, Any], Tensor]:
    """The task's loss of outputs and labels as these options have it: with label smoothing.

    Raises:
        RecipeError: label smoothing is asked for, and the task is a score, or of tokens.
    """
    smoothing = options.label_smoothing
    if not smoothing:
        return task.loss
    if task.scores:
        raise RecipeError(
            f"label_smoothing {smoothing:g}: task '{task.name}' is a score and has no classes; leave it out"
        )
    if isinstance(task.preprocess, TextPreprocess) and task.num_classes is None:
        raise RecipeError(
            f"label_smoothing {smoothing:g}: task '{task.name}' asks for tokens and not for classes; leave it out"
        )
    return lambda outputs, labels: smooth(task.loss(outputs, labels), logits_of(outputs), smoothing)


def default_step(task: Task, options: TrainOptions) -> Step:
    """Make the step of plain training: model, loss, label smoothing. Raises what `task_loss` does."""
    loss = task_loss(task, options)

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        with task.focus(model, batch.labels):
            outputs = call(model, batch.inputs)
        return {"loss": loss(outputs, batch.labels), "terms": {}}

    return step
