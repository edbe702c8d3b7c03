"""Mean squared error of hidden states: TinyBERT, Jiao et al. 2020 (1909.10351), equation 8.

    loss = MSE(H_s · W, H_t)

W is a projection on the student's side, trained with it, which makes its width the teacher's. The mean is over the
tokens that count and over the width; the authors' code has padded positions in its mean as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import wide
from lianzhi.distill.losses.positions import PositionOptions, mean_of, positions
from lianzhi.errors import DataError

Projection: TypeAlias = Callable[[Tensor], Tensor] | Tensor


@registry.register(
    "hidden_mse",
    "mean squared error of hidden states, through a projection of the student's",
    paper="https://arxiv.org/abs/1909.10351",
    config=PositionOptions,
)
def hidden_mse(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    *,
    projection: Projection | None = None,
    mask: Tensor | None = None,
    by_sample: bool = False,
) -> Tensor:
    """Make the student's hidden states, projected, those of the teacher.

    >>> import torch
    >>> student, teacher = torch.ones(1, 2, 3), torch.full((1, 2, 2), 5.0)
    >>> hidden_mse(student, teacher, projection=torch.ones(3, 2)).item()          # (3 − 5)²
    4.0

    Hidden states are (batch, tokens, width), the mask (batch, tokens) and true where a token counts. The projection
    is a function, a `Linear` say, or a matrix (student's width, teacher's width); none for equal widths. With
    `by_sample` the mean of each sample is taken first. No gradient goes to the teacher. The mean over nothing is 0.

    Raises:
        DataError: the positions differ, the mask does not fit, or the widths differ after the projection.
    """
    student, teacher, keep = positions(student_hidden, teacher_hidden, mask)
    if isinstance(projection, Tensor):
        if projection.ndim != 2 or len(projection) != student.shape[-1]:
            raise DataError(
                f"the projection has shape {list(projection.shape)}; hidden states {list(student.shape)} and "
                f"{list(teacher.shape)} need [{student.shape[-1]}, {teacher.shape[-1]}]"
            )
        with torch.autocast(student.device.type, enabled=False):  # it would multiply in half precision
            student = student @ wide(projection).to(student.dtype)
    elif projection is not None:
        student = wide(projection(student.to(student_hidden.dtype)))
    if student.shape != teacher.shape:
        raise DataError(
            f"the student's hidden states {'have' if projection is None else 'become'} {list(student.shape)}, the "
            f"teacher's have {list(teacher.shape)}; give a projection from width {student_hidden.shape[-1]} "
            f"to {teacher.shape[-1]}"
        )
    return mean_of((student - teacher).square().mean(-1), keep, by_sample)
