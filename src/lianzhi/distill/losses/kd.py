"""Knowledge distillation on logits: Hinton, Vinyals and Dean 2015 (1503.02531).

    loss = alpha · T² · KL(softmax(t / T) ‖ softmax(s / T)) + (1 - alpha) · CE(s, labels)

KL is summed over classes and averaged over samples (over valid tokens, with a mask), never over classes: PyTorch's
``reduction="mean"``, which much published code uses, divides by the number of classes as well. T² keeps the
size of the soft gradients as T changes; with a temperature for the teacher alone the factor is T_s · T_t.

With `standardize` the soft loss compares z-scores of the logits (2403.01427), see `standardized`.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import (
    as_classes,
    log_probabilities,
    mean_or_zero,
    require_same_shape,
    squared_difference,
    valid,
    wide,
)
from lianzhi.distill.losses.standardized import standardized


class KDOptions(Config):
    """Options of `kd`."""

    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    teacher_temperature: float | None = Field(default=None, gt=0)
    standardize: bool = False


@registry.register(
    "kd",
    "KL divergence between softened logits, and cross entropy with the labels",
    paper="https://arxiv.org/abs/1503.02531",
    config=KDOptions,
)
def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    mask: Tensor | None = None,
    teacher_temperature: float | None = None,
    standardize: bool = False,
) -> Tensor:
    """Make the student's class probabilities those of the teacher, and right.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 0.0]])
    >>> round(kd(student, teacher).item(), 4)                            # 0.9 · 4² · KL
    3.7066
    >>> round(kd(student, teacher, torch.tensor([0])).item(), 4)         # and 0.1 · cross entropy
    3.9193

    Logits are (batch, classes) or (batch, tokens, classes), labels and mask have that shape without its last part;
    where the mask is false (padding) nothing counts, the label there included. Without labels the result is
    alpha · T² · KL. With one output, a regression, KL and cross entropy become the mean squared error of the
    outputs, and T is not used. No gradient goes to the teacher. The mean over no sample is 0.

    With `standardize` the soft loss sees the z-scores of each sample's logits, of the student and of the teacher: the
    student learns the order of the classes and their relative distances, not the size of the teacher's logits. Its
    authors take T = 2 and nine times the weight of the cross entropy. The cross entropy sees the logits as they are.

    Raises:
        RecipeError: a temperature is not above 0, or alpha not in 0 … 1.
        DataError: logits, labels or mask have shapes that do not go together, or a label is no class.
    """
    options = KDOptions(
        temperature=temperature,
        alpha=alpha,
        teacher_temperature=teacher_temperature,
        standardize=standardize,
    )
    require_same_shape(student_logits, teacher_logits)
    student, teacher, labels = valid(student_logits, teacher_logits.detach(), labels, mask)
    rows = divergences(
        student, teacher, options.temperature, options.teacher_temperature, standardize=options.standardize
    )
    soft = options.alpha * mean_or_zero(rows)
    return soft if labels is None else soft + (1 - options.alpha) * hard_loss(student, labels)


def divergences(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    teacher_temperature: float | None = None,
    *,
    standardize: bool = False,
) -> Tensor:
    """T² · KL of each row of logits (…, classes), of one output the squared error: (…).

    >>> import torch
    >>> divergences(torch.ones(3, 2, 5), torch.ones(3, 2, 5), 4.0).shape
    torch.Size([3, 2])
    """
    if student.shape[-1] == 1:
        return squared_difference(student, teacher)
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    other = temperature if teacher_temperature is None else teacher_temperature
    divergence = functional.kl_div(
        log_probabilities(student, temperature),
        log_probabilities(teacher, other),
        reduction="none",
        log_target=True,
    )
    return temperature * other * divergence.sum(-1)


def hard_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (samples, classes), the mean over samples; of one output the mean squared error."""
    student = wide(student)
    if student.shape[-1] == 1:
        return mean_or_zero((student.squeeze(-1) - labels.to(student.dtype)).square())
    classes = as_classes(labels, student.shape[-1])
    return mean_or_zero(functional.cross_entropy(student, classes, reduction="none"))
