"""Patience: Patient Knowledge Distillation, Sun et al. 2019 (1908.09355), equation 7.

    loss = Σ over layers ‖h_s/‖h_s‖ − h_t/‖h_t‖‖²

h is the hidden state of [CLS] after a layer. This is the mean over samples, layers and the width, as the authors'
code takes it; the paper's formula sums over the width and over layers.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import unit
from lianzhi.distill.losses.positions import PositionOptions, mean_of, positions
from lianzhi.errors import DataError


@registry.register(
    "patience",
    "mean squared error of [CLS] states of length one",
    paper="https://arxiv.org/abs/1908.09355",
    config=PositionOptions,
)
def patience(
    student_hidden: Tensor, teacher_hidden: Tensor, *, mask: Tensor | None = None, by_sample: bool = False
) -> Tensor:
    """Turn the student's states to where the teacher's point.

    >>> import torch
    >>> patience(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])).item()
    1.0

    States are (batch, width) or (batch, layers, width); or (batch, tokens, width) with a mask (batch, tokens), true
    where a token counts. The mean is over all elements; with `by_sample` that of each sample is taken first. No
    gradient goes to the teacher.

    Raises:
        DataError: the states do not have the same shape, or the mask does not fit.
    """
    student, teacher, keep = positions(student_hidden, teacher_hidden, mask)
    if student.shape != teacher.shape:
        raise DataError(
            f"patience needs states of one width; the student's are {list(student.shape)}, "
            f"the teacher's {list(teacher.shape)}"
        )
    turned = unit(student) - unit(teacher)
    return mean_of(turned.square().mean(-1), keep, by_sample)
