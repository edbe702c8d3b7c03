"""Decoupled knowledge distillation: Zhao et al. 2022 (2203.08679), equations 7 and 8.

With p = softmax(t / T), q = softmax(s / T), the label y, and p̂, q̂ the same without the class y, scaled to sum 1:

    TCKD = KL((p_y, 1 - p_y) ‖ (q_y, 1 - q_y))         NCKD = KL(p̂ ‖ q̂)
    loss = T² · (alpha · TCKD + beta · NCKD),          while KL(p ‖ q) = TCKD + (1 - p_y) · NCKD

In `kd` a teacher that is sure of the label weighs NCKD, what it knows of the other classes, with almost nothing.
With two classes NCKD is always 0, and `kd` is the same thing.

The authors' code takes probabilities first and their logarithm after, which is -inf for a student that is sure;
and puts the label's logit 1000 lower instead of leaving it out. Here all is done on log-probabilities, over the other
classes alone. It adds no cross entropy; their linear warm-up over the first 20 of 240 epochs belongs to the method.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import (
    as_classes,
    kl,
    log_probabilities,
    mean_or_zero,
    require_same_shape,
    squared_difference,
    valid,
    wide,
)
from lianzhi.distill.losses.standardized import standardized
from lianzhi.errors import DataError


class DKDOptions(Config):
    """Options of `dkd`."""

    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=8.0, ge=0)
    temperature: float = Field(default=4.0, gt=0)
    standardize: bool = False


@registry.register(
    "dkd",
    "KL divergence of the label's class against the rest, and of the rest, each with its own weight",
    paper="https://arxiv.org/abs/2203.08679",
    config=DKDOptions,
)
def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    mask: Tensor | None = None,
    standardize: bool = False,
) -> Tensor:
    """T² · (alpha · TCKD + beta · NCKD): how sure of the label, and what about the other classes.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 2.0]])
    >>> round(dkd(student, teacher, torch.tensor([0])).item(), 4)
    9.0412
    >>> round(dkd(student, teacher, torch.tensor([0]), beta=0.0).item(), 4)          # TCKD alone
    0.2467

    Logits are (batch, classes) or (batch, tokens, classes), labels and mask have that shape without its last part;
    where the mask is false (padding) nothing counts, the label there included. With `standardize` the z-scores of the
    logits are compared (`kd` explains it). With one output, a regression, the result is the mean squared error of
    the outputs, labels and options unused. No gradient goes to the teacher. The mean over no sample is 0.

    Raises:
        RecipeError: a weight is negative, or the temperature not above 0.
        DataError: logits, labels or mask have shapes that do not go together, or a label is no class.
    """
    options = DKDOptions(alpha=alpha, beta=beta, temperature=temperature, standardize=standardize)
    require_same_shape(student_logits, teacher_logits)
    student, teacher, targets = valid(student_logits, teacher_logits.detach(), labels, mask)
    if student.shape[-1] == 1:
        return mean_or_zero(squared_difference(student, teacher))
    if targets is None:
        raise DataError("dkd needs labels: they say which class is weighed against the rest")
    targets = as_classes(targets, student.shape[-1])
    if options.standardize:
        student, teacher = standardized(student), standardized(teacher)
    target, others = decoupled(student, teacher, targets, options.temperature)
    return options.alpha * target + options.beta * others


def decoupled(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T² · TCKD and T² · NCKD of logits (samples, classes) and labels (samples,), each the mean over samples.

    >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
    >>> [part.item() for part in decoupled(logits, logits, torch.tensor([1]), 4.0)]
    [0.0, 0.0]
    """
    q, p = log_probabilities(student, temperature), log_probabilities(teacher, temperature)
    target = kl(_label_and_rest(p, labels), _label_and_rest(q, labels))
    q_other = log_probabilities(_without(wide(student), labels), temperature)
    p_other = log_probabilities(_without(wide(teacher), labels), temperature)
    others = kl(p_other, q_other)
    return temperature**2 * mean_or_zero(target), temperature**2 * mean_or_zero(others)


def _label_and_rest(log_probability: Tensor, labels: Tensor) -> Tensor:
    """log p_y and log (1 - p_y), the sum of the others and not the difference: exact where p_y is nearly 1."""
    chosen = log_probability.gather(-1, labels[:, None])
    rest = _without(log_probability, labels).logsumexp(-1, keepdim=True)
    return torch.cat([chosen, rest], dim=-1)


def _without(values: Tensor, labels: Tensor) -> Tensor:
    """The columns of (samples, classes) but each row's own label: (samples, classes - 1)."""
    columns = torch.arange(values.shape[-1] - 1, device=values.device)
    return values.gather(-1, columns + (columns >= labels[:, None]))
