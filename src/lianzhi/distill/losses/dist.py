"""DIST: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher" (2205.10536), equations 6 to 9.

With P = softmax(s / T) and Q = softmax(t / T), (samples, classes), and r Pearson's correlation:

    inter = mean over samples of 1 - r(P[i, :], Q[i, :])        intra = mean over classes of 1 - r(P[:, j], Q[:, j])
    loss = T² · (beta · inter + gamma · intra)

Equal up to scale and shift is enough, so a student need not copy how sure a much larger teacher is.

The authors' code adds 1e-8 to the product of the norms, which drowns the correlation of a rare class (columns of
probabilities near 1e-5). Here nothing is added. A row or column where the teacher is constant, or below 1e-30
throughout, has no correlation to teach and is left out; where only the student is, the correlation is 0, without a gradient.
"""

from __future__ import annotations

import torch
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

TINY = 1e-6  # probabilities below it are scaled up before they are squared
NOTHING = 1e-30  # a class that is never this likely: the gradient of its correlation would be infinite


class DISTOptions(Config):
    """Options of `dist`."""

    beta: float = Field(default=1.0, ge=0, description="of the part within a sample")
    gamma: float = Field(default=1.0, ge=0, description="of the part within a class")
    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "dist",
    "one minus the correlation of probabilities, within a sample and within a class",
    paper="https://arxiv.org/abs/2205.10536",
    config=DISTOptions,
)
def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """T² · (beta · inter + gamma · intra): the relations of the teacher's probabilities, not their size.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[0.0, 9.0], [7.0, 0.0]])
    >>> round(dist(student, teacher).item(), 4)                          # less sure, and related as the teacher is
    0.0
    >>> round(dist(-student, teacher).item(), 4)                         # the other way round: 1 - -1, twice
    4.0

    Logits are (batch, classes) or (batch, tokens, classes); the mask has that shape without its last part. The rows
    are the samples (tokens) that count, and a column goes over all of them, so that the intra-class part depends
    on which samples share a batch: parts of a batch do not add up to the whole. Of one sample it is 0. With two classes
    a row's correlation is 1 or -1, without a gradient. With one output, a regression, the result is the mean
    squared error of the outputs. No gradient goes to the teacher. The mean over no sample is 0.

    Raises:
        RecipeError: a weight is negative, or the temperature not above 0.
        DataError: logits or mask have shapes that do not go together.
    """
    options = DISTOptions(beta=beta, gamma=gamma, temperature=temperature)
    require_same_shape(student_logits, teacher_logits)
    student, teacher, _ = valid(student_logits, teacher_logits.detach(), None, mask)
    if student.shape[-1] == 1:
        return mean_or_zero(squared_difference(student, teacher))
    inter, intra = relations(student, teacher, options.temperature)
    return options.beta * inter + options.gamma * intra


def relations(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T² times the inter-class and the intra-class part, of logits (samples, classes).

    >>> logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 3.0]])
    >>> [round(part.item(), 6) for part in relations(logits, 2 * logits, 2.0)]
    [0.014444, 0.0]
    """
    rows = log_probabilities(student, temperature).exp(), log_probabilities(teacher, temperature).exp()
    columns = rows[0].transpose(0, 1), rows[1].transpose(0, 1)
    return temperature**2 * _unrelated(*rows), temperature**2 * _unrelated(*columns)


def _unrelated(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - Pearson's correlation of the rows, the mean over those where the teacher is not constant."""
    if student.numel() == 0:
        return student.sum()
    student, student_varies = _unit(student)
    teacher, teacher_varies = _unit(teacher)
    correlation = (student * teacher).sum(-1)
    distance = torch.where(student_varies, 1 - correlation, 1.0)
    return (distance * teacher_varies).sum() / teacher_varies.sum().clamp_min(1)


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row centred and of length 1, and whether it varies by more than rounding; zeros where it does not."""
    largest = rows.detach().abs().amax(-1, keepdim=True)
    nothing = largest < NOTHING
    rows = rows / torch.where((largest < TINY) & ~nothing, largest, 1.0)  # or their squares would be 0
    centred = rows - rows.mean(-1, keepdim=True)
    length = centred.square().sum(-1)
    smallest = 8 * torch.finfo(rows.dtype).eps * rows.detach().norm(dim=-1)
    flat = (length.detach() <= smallest.square()) | nothing[:, 0]
    varies = ~flat  # NaN varies: it is to be seen in the loss
    scale = torch.where(varies, length, 1.0).rsqrt()
    return torch.where(varies[:, None], centred * scale[:, None], 0.0), varies
