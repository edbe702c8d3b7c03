"""What all losses share: shapes are compared, masked positions left out, sums taken in float32 or wider."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lianzhi.errors import DataError


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raise `DataError` unless both have the same shape (…, classes)."""
    if student.shape != teacher.shape or student.ndim < 2:
        raise DataError(
            f"the student's outputs have shape {list(student.shape)} and the teacher's {list(teacher.shape)}; "
            f"both must be (batch, …, classes) with the same classes in the same order"
        )


def valid(
    student: Tensor, teacher: Tensor, labels: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs as (samples, classes) and labels as (samples,), of the positions where the mask is true.

    >>> logits, mask = torch.zeros(2, 3, 5), torch.tensor([[1, 1, 0], [1, 0, 0]])
    >>> valid(logits, logits, None, mask)[0].shape
    torch.Size([3, 5])
    """
    positions = student.shape[:-1]
    if labels is not None and labels.shape != positions:
        if student.shape[-1] != 1 or labels.shape != student.shape:
            raise DataError(
                f"labels have shape {list(labels.shape)}; outputs {list(student.shape)} need {list(positions)}"
            )
        labels = labels.squeeze(-1)
    if mask is not None and mask.shape != positions:
        raise DataError(
            f"the mask has shape {list(mask.shape)}; outputs {list(student.shape)} need {list(positions)}"
        )
    keep = slice(None) if mask is None else mask.to(torch.bool).flatten()
    return (
        student.flatten(0, -2)[keep],
        teacher.flatten(0, -2)[keep],
        None if labels is None else labels.flatten()[keep],
    )


def as_classes(labels: Tensor, classes: int) -> Tensor:
    """Labels as int64, of whatever whole numbers they are.

    >>> as_classes(torch.tensor([0, 2], dtype=torch.uint8), 3)
    tensor([0, 2])

    Raises:
        DataError: they are no whole numbers, or one is not in 0 … classes - 1.
    """
    if labels.dtype.is_floating_point:
        raise DataError(f"a class is needed as the label of a sample; the labels are {labels.dtype}")
    labels = labels.long()
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.numel():
        raise DataError(
            f"label {wrong[0].item()} is no class: the outputs have {classes}, 0 to {classes - 1}; "
            f"what must not count (padding) needs a mask that is false there"
        )
    return labels


def wide(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / T) over the last axis, in float32 or wider; an impossible class is very small, not -inf.

    The logits of a class that a model rules out are -inf, and 0 · (-inf - -inf) would be NaN where it must be 0.

    >>> log_probabilities(torch.tensor([0.0, float("-inf")])).exp().tolist()
    [1.0, 0.0]
    """
    found = functional.log_softmax(wide(logits) / temperature, dim=-1)
    return found.clamp_min(torch.finfo(found.dtype).min)


def squared_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared difference of outputs (samples, width), the mean over the width: (samples,)."""
    return (wide(student) - wide(teacher)).square().mean(-1)


def mean_or_zero(values: Tensor) -> Tensor:
    """The mean; of no values 0, with a gradient of zeros.

    >>> mean_or_zero(torch.zeros(0)).item()
    0.0
    """
    return values.sum() / max(values.numel(), 1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of log-probabilities (n, classes): (n,).

    >>> kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor([0.1438])
    """
    return (p.exp() * (p - q)).sum(-1)
