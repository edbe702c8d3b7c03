"""What the methods on logits share: the step, with the task's own loss beside what compares student and teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lianzhi.distill.losses.kd import hard_loss
from lianzhi.distill.losses.parts import require_same_shape, valid
from lianzhi.distill.methods.encoders import mask_of
from lianzhi.distill.methods.teacher import Logits, logits_of
from lianzhi.distill.methods.terms import grown, weighted
from lianzhi.errors import DataError, RecipeError
from lianzhi.tasks import Batch
from lianzhi.train.default_step import call

ByToken = Callable[[Tensor, Tensor, Tensor | None], Mapping[str, tuple[float, Tensor]]]
Compare = Callable[[Tensor, Tensor, Batch], Mapping[str, tuple[float, Tensor]]]
Loss = Callable[[Any, Any], Tensor]


def on_labels(
    outputs: Any, student: Tensor, wanted: Tensor, labels: Any, mask: Tensor | None, loss: Loss | None
) -> Tensor:
    """The task's own loss; without one cross entropy, or the mean squared error of one output, of the tokens that count."""
    if loss is not None:
        return loss(outputs, labels)
    own, _, found = valid(student, wanted, labels, mask if student.ndim > 2 else None)
    assert found is not None
    return hard_loss(own, found)


def require_classes_last(name: str, logits: Tensor) -> None:
    """Raise `DataError` of one answer a pixel, (batch, classes, height, width): its last axis is none of classes.

    >>> import torch
    >>> require_classes_last("kd", torch.zeros(2, 5, 3))  # of tokens
    """
    if logits.ndim > 3:
        raise DataError(
            f"{name} compares classes, (batch, classes) or (batch, tokens, classes), and the models give {list(logits.shape)}; "
            f"for one answer a pixel take a method on features without 'soft', or a wrapper that flattens the positions: "
            f"outputs.flatten(2).transpose(1, 2)"
        )


class LogitStep:
    """The step of the training loop: the terms of `compare`, and `hard` · the task's loss.

    `compare` takes the student's and the teacher's logits, (samples, classes) both, and the batch, and gives
    terms with their weights. Over the share `warmup` of training those weights grow from 0, in a straight line.
    `loss(outputs, labels)` is the task's own, the mean over samples; without it cross entropy (mean squared error for
    one output). Of one answer a token, (samples, tokens, classes), `by_token` is asked with the mask of the tokens that
    count; without it such logits are refused. The teacher runs in eval mode and without gradients, is no part of the student,
    and keeps its modes.
    """

    def __init__(
        self,
        name: str,
        teacher: nn.Module | Logits,
        compare: Compare,
        *,
        hard: float,
        warmup: float = 0.0,
        loss: Callable[[Any, Any], Tensor] | None = None,
        by_token: ByToken | None = None,
    ) -> None:
        if teacher is None:
            raise RecipeError(f"{name} needs a teacher: a trained model with the same classes as the student")
        self.source = teacher if isinstance(teacher, Logits) else Logits(teacher)
        self.teacher = self.source.teacher
        self.name, self.compare, self.by_token = name, compare, by_token
        self.hard, self.warmup, self.loss = hard, warmup, loss
        self.grown = 0.0 if warmup else 1.0

    def at(self, number: int, total: int) -> None:
        """Before update `number` of `total`: how much of the weights counts."""
        self.grown = grown(number, total, self.warmup)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """The loss of a batch, and its terms with and without weight."""
        if model is self.teacher:
            raise RecipeError("teacher and student are the same model; give a copy of it as the teacher")
        outputs = call(model, batch.inputs)
        student = logits_of(outputs, "student")
        wanted = self.source(batch, student.device)
        require_same_shape(student, wanted)
        require_classes_last(self.name, student)
        mask = mask_of(batch.inputs) if student.ndim > 2 else None
        if student.ndim == 2:
            found = self.compare(student, wanted, batch)
        else:
            found = self.per_token()(student, wanted, mask)
        terms = {name: (self.grown * weight, value) for name, (weight, value) in found.items()}
        hard = on_labels(outputs, student, wanted, batch.labels, mask, self.loss)
        return weighted({**terms, "hard": (self.hard, hard)})

    def per_token(self) -> ByToken:
        """What compares one answer of each token. Raises `DataError` where nothing does."""
        if self.by_token is None:
            raise DataError(
                f"{self.name} compares one answer of each sample, and the models give one of each token; use kd, pkd or "
                f"distilbert, which leave padding out"
            )
        return self.by_token
