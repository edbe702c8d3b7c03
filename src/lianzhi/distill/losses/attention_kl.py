"""KL divergence of attention: MobileBERT, Sun et al. 2020 (2004.02984), equation 3; MiniLM's first term as well.

    loss = 1/(h·n) · Σ over heads and queries of KL(softmax(A_t) ‖ softmax(A_s))

A are the scores before the softmax. A padded token is no key and no query: the distributions are over the tokens
that count, and the mean is over the queries that count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import kl, log_probabilities
from lianzhi.distill.losses.positions import PositionOptions, mean_of, pairs, scores


@registry.register(
    "attention_kl",
    "KL divergence of the attention of each token",
    paper="https://arxiv.org/abs/2004.02984",
    config=PositionOptions,
)
def attention_kl(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None, by_sample: bool = False
) -> Tensor:
    """Make every token of the student look where the teacher's looks.

    >>> import torch
    >>> student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 2.0]]]])
    >>> round(attention_kl(student, teacher).item(), 4)
    0.3278

    Scores before the softmax are (batch, heads, tokens, tokens), with as many heads on both sides; the mask is
    (batch, tokens), true where a token counts. The divergence is summed over keys, the mean is over heads and over
    the queries that count; with `by_sample` that of each sample is taken first. No gradient goes to the teacher.

    Raises:
        DataError: the scores do not have the same shape, or the mask does not fit.
    """
    student, teacher, keep = scores(student_scores, teacher_scores, mask)
    if keep is not None:
        student, teacher = (_only(item, keep) for item in (student, teacher))
    divergence = kl(log_probabilities(teacher), log_probabilities(student))
    return mean_of(divergence, None if keep is None else keep[:, None, :], by_sample)


def _only(values: Tensor, keep: Tensor) -> Tensor:
    """Scores whose softmax gives nothing to padded keys; of padded queries, which do not count, all zero."""
    lowest = torch.finfo(values.dtype).min / 2
    blank = values.masked_fill(~pairs(keep), 0)
    return blank.masked_fill((keep[:, None, :, None] & ~keep[:, None, None, :]), lowest)
