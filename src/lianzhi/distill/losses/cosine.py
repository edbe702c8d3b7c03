"""Cosine of hidden states: DistilBERT, Sanh et al. 2019 (1910.01108).

    loss = 1 − cos(h_s, h_t)

The mean over tokens that count, of the last hidden states, as in the authors' code.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.features import unit
from lianzhi.distill.losses.positions import PositionOptions, mean_of, positions
from lianzhi.errors import DataError


@registry.register(
    "cosine",
    "one minus the cosine of hidden states",
    paper="https://arxiv.org/abs/1910.01108",
    config=PositionOptions,
)
def cosine(
    student_hidden: Tensor, teacher_hidden: Tensor, *, mask: Tensor | None = None, by_sample: bool = False
) -> Tensor:
    """Make the student's hidden states point where the teacher's do.

    >>> import torch
    >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    1.0

    Hidden states are (batch, tokens, width) or (batch, width), the mask has that shape without the width and is true
    where a token counts. With `by_sample` the mean of each sample is taken first. No gradient goes to the teacher.

    Raises:
        DataError: the hidden states do not have the same shape, or the mask does not fit.
    """
    student, teacher, keep = positions(student_hidden, teacher_hidden, mask)
    if student.shape != teacher.shape:
        raise DataError(
            f"cosine needs hidden states of one width; the student's are {list(student.shape)}, "
            f"the teacher's {list(teacher.shape)}"
        )
    return mean_of(1 - (unit(student) * unit(teacher)).sum(-1), keep, by_sample)
