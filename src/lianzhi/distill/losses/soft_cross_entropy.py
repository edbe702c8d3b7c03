"""Soft cross entropy: the student's cross entropy with the teacher's probabilities, as TinyBERT (1909.10351, equation 10).

    loss = -Σ softmax(t / T) · log softmax(s / T), summed over classes, the mean over samples

It is KL(softmax(t / T) ‖ softmax(s / T)) plus the entropy of the teacher, so it has KL's gradient and is not 0 for
a student that equals the teacher. As in the paper no T² is multiplied. Its authors' code takes the mean over classes
as well, which makes it smaller by their number; here it is the sum, as in the equation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import (
    log_probabilities,
    mean_or_zero,
    require_same_shape,
    squared_difference,
    valid,
)


class SoftCrossEntropyOptions(Config):
    """Options of `soft_cross_entropy`."""

    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "soft_cross_entropy",
    "cross entropy with the teacher's probabilities",
    paper="https://arxiv.org/abs/1909.10351",
    config=SoftCrossEntropyOptions,
)
def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Cross entropy of the student with the teacher's softened probabilities as targets.

    >>> import torch
    >>> even = torch.zeros(1, 4)                                         # the entropy of four even classes: ln 4
    >>> round(soft_cross_entropy(even, even).item(), 4)
    1.3863

    Logits are (batch, classes) or (batch, tokens, classes); the mask has that shape without its last part, and where
    it is false (padding) nothing counts. With one output, a regression, it is the mean squared error of the outputs.
    No gradient goes to the teacher. The mean over no sample is 0.

    Raises:
        RecipeError: the temperature is not above 0.
        DataError: logits or mask have shapes that do not go together.
    """
    options = SoftCrossEntropyOptions(temperature=temperature)
    require_same_shape(student_logits, teacher_logits)
    student, teacher, _ = valid(student_logits, teacher_logits.detach(), None, mask)
    return mean_or_zero(cross_entropies(student, teacher, options.temperature))


def cross_entropies(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """That of each row of logits (…, classes), of one output the squared error: (…).

    >>> import torch
    >>> cross_entropies(torch.zeros(3, 2, 5), torch.zeros(3, 2, 5), 1.0).shape
    torch.Size([3, 2])
    """
    if student.shape[-1] == 1:
        return squared_difference(student, teacher)
    targets = log_probabilities(teacher, temperature).exp()
    return -(targets * log_probabilities(student, temperature)).sum(-1)
