"""Mean squared error of attention scores: TinyBERT, Jiao et al. 2020 (1909.10351), equation 7.

    loss = 1/h · Σᵢ MSE(A_s,ᵢ, A_t,ᵢ)

A = Q·Kᵀ/√d are the scores *before* the softmax. Scores from or to a padded token do not count; the authors' code
sets them to zero on both sides and keeps them in the mean.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.positions import PositionOptions, mean_of, pairs, scores


@registry.register(
    "attention_mse",
    "mean squared error of attention scores before the softmax",
    paper="https://arxiv.org/abs/1909.10351",
    config=PositionOptions,
)
def attention_mse(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None, by_sample: bool = False
) -> Tensor:
    """Make the student's attention scores those of the teacher.

    >>> import torch
    >>> attention_mse(torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 2.0)).item()
    4.0

    Scores are (batch, heads, tokens, tokens), with as many heads on both sides; the mask is (batch, tokens), true
    where a token counts. The mean is over heads and over the scores that count; with `by_sample` that of each sample
    is taken first. No gradient goes to the teacher. The mean over nothing is 0.

    Raises:
        DataError: the scores do not have the same shape, or the mask does not fit.
    """
    student, teacher, keep = scores(student_scores, teacher_scores, mask)
    counted = None if keep is None else pairs(keep)
    if counted is not None:
        student, teacher = student.masked_fill(~counted, 0), teacher.masked_fill(~counted, 0)
    return mean_of((student - teacher).square(), counted, by_sample)
