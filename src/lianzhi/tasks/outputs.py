"""The logits among a model's outputs, and the losses on them: of classes, and of a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from lianzhi.errors import DataError


def logits_of(outputs: Any) -> Tensor:
    """The tensor itself, or the entry ``logits`` of a dict-like output (such as Hugging Face models return).

    >>> import torch
    >>> logits_of({"logits": torch.zeros(1, 2)}).shape
    torch.Size([1, 2])
    """
    found = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(found, Tensor):
        raise DataError(
            f"the model returns a {type(outputs).__name__}; loss and metrics need logits: a tensor, or a dict with "
            f"the entry 'logits'. Give the task loss= and metrics= of your own for other outputs"
        )
    return found


def logits_alone(outputs: Any, labels: Any) -> tuple[Tensor, Any]:
    """What metrics of classes and scores read: no states of texts, which are of other lengths in each batch."""
    return logits_of(outputs), labels


def classification_loss(outputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy of the logits, the mean over the batch.

    >>> import torch
    >>> classification_loss(torch.zeros(2, 3), torch.tensor([0, 3]))
    Traceback (most recent call last):
        ...
    lianzhi.errors.DataError: the labels go from 0 to 3, and the model has 3 outputs; mend the labels, or make the model with num_classes=4
    """
    logits = logits_of(outputs)
    try:
        return functional.cross_entropy(logits, labels)
    except IndexError:
        lowest, highest = int(labels.min()), int(labels.max())
        raise DataError(
            f"the labels go from {lowest} to {highest}, and the model has {logits.shape[1]} outputs; mend the labels, "
            f"or make the model with num_classes={highest + 1}"
        ) from None


def score_of(outputs: Any) -> Tensor:
    """The one output of each sample, of shape (batch,).

    >>> import torch
    >>> score_of(torch.tensor([[1.0], [2.0]])).tolist()
    [1.0, 2.0]
    """
    logits = logits_of(outputs)
    if logits.ndim != 2 or logits.shape[1] != 1:
        raise DataError(
            f"the model's output has shape {tuple(logits.shape)}, and a score is one number a sample; "
            f"make the model with num_classes=1"
        )
    return logits[:, 0]


def score_loss(outputs: Any, scores: Tensor) -> Tensor:
    """The squared error of the one output, the mean over the batch, in float32.

    >>> import torch
    >>> score_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])).item()
    2.0
    """
    return functional.mse_loss(score_of(outputs).float(), scores.float())
