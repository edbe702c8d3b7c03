"""Relational knowledge distillation: Park et al. 2019 (1904.05068), sections 3.2.1 and 3.2.2.

    psi_D(i, j)    = |f_i - f_j| / mean of all such distances that are not 0
    psi_A(i, j, k) = cosine of the angle at f_k between f_i and f_j
    loss = distance · mean of huber(psi_D of student, of teacher) + angle · mean of huber(psi_A …)

The weights 25 and 50 are those with which later work compares it (1910.10699); they stand inside because they belong
together. Means are over all pairs and triples, those of a sample with itself included (they add 0), as
in the authors' code.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import lengths, products, unit, vectors
from lianzhi.distill.losses.parts import mean_or_zero


class RKDOptions(Config):
    """Options of `rkd`."""

    distance: float = Field(default=25.0, ge=0)
    angle: float = Field(default=50.0, ge=0)


@registry.register(
    "rkd",
    "distances and angles between the samples of a batch",
    paper="https://arxiv.org/abs/1904.05068",
    config=RKDOptions,
)
def rkd(student: Tensor, teacher: Tensor, *, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """Make the samples of a batch lie to each other as they do in the teacher.

    >>> import torch
    >>> teacher = torch.randn(8, 16)
    >>> rkd(5 * teacher + 1, teacher).item() < 1e-8          # moved and scaled: the same relations
    True

    Features are (batch, …), taken as one vector a sample; how long it is may differ. Memory grows with
    batch² · length and batch³: give pooled features. No gradient goes to the teacher. One sample alone has no
    relations: 0.

    Raises:
        RecipeError: a weight is negative.
        DataError: the features are not of the same samples.
    """
    options = RKDOptions(distance=distance, angle=angle)
    student, teacher = vectors(student, teacher)
    lines, wanted = _lines(student), _lines(teacher)
    loss = student.sum() * 0
    if options.distance:
        loss = loss + options.distance * _huber(_distances(lines), _distances(wanted))
    if options.angle:
        loss = loss + options.angle * _huber(_angles(lines), _angles(wanted))
    return loss


def _lines(points: Tensor) -> Tensor:
    """From each sample to each: (batch, batch, length)."""
    return points.unsqueeze(0) - points.unsqueeze(1)


def _distances(lines: Tensor) -> Tensor:
    """Lengths of all lines, in units of their mean."""
    found = lengths(lines)
    count = (found > 0).sum().clamp(min=1)
    mean = found.sum() / count
    return found / mean.clamp(min=torch.finfo(found.dtype).tiny)


def _angles(lines: Tensor) -> Tensor:
    """Cosines between all lines from one sample: (batch, batch, batch)."""
    directions = unit(lines)
    return products(directions, directions)


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return mean_or_zero(functional.smooth_l1_loss(student, teacher, reduction="none"))
