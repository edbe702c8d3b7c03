"""KL divergence of attention: MobileBERT, Sun et al. 2020 (2004.02984), equation 3; MiniLM's first term as well.

    loss = 1/(h·n) · Σ over heads and queries of KL(softmax(A_t) ‖ softmax(A_s))

A are the scores before the softmax. A padded token is no key and no query: the distributions are over the tokens
that count, and the mean is over the queries that count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from lianzhi.distill.losses.catalog import registry
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
    kind = torch.promote_types(student.dtype, teacher.dtype)
    function = _Divergence if torch.compiler.is_compiling() else _Forward  # the compiler takes no `jvp`
    divergence = function.apply(student.to(kind), teacher.to(kind), keep)
    return mean_of(divergence, None if keep is None else keep[:, None, :], by_sample)


class _Divergence(torch.autograd.Function):
    """KL of each row of scores, (batch, heads, queries), with its gradient, student's less teacher's, in closed form.

    Scores are the largest tensors of a step, heads · tokens² a sample: they are passed over as seldom as can be.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:
        """Where nothing counts, a padded query's row included, there is neither value nor gradient."""
        blank, other = (_blank(item, keep) for item in (student, teacher))
        difference = _log_softmax(other).sub_(_log_softmax(blank))
        return difference.mul_(softmax(other, dim=-1)).sum(-1)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        context.save_for_backward(*inputs)
        context.save_for_forward(*inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Of the student's scores alone; it can be differentiated again."""
        return _difference(*context.saved_tensors) * gradient.unsqueeze(-1), None, None


class _Forward(_Divergence):
    """With derivatives forward as well."""

    @staticmethod
    def jvp(context: Any, tangent: Tensor, *_: Any) -> Tensor:
        """Along a direction of the student's scores."""
        return (_difference(*context.saved_tensors) * tangent).sum(-1)


def _difference(student: Tensor, teacher: Tensor, keep: Tensor | None) -> Tensor:
    """The student's probabilities less the teacher's."""
    q, p = (softmax(_blank(item, keep), dim=-1) for item in (student, teacher))
    return q - p


def _blank(values: Tensor, keep: Tensor | None) -> Tensor:
    """Scores whose softmax gives nothing to padded keys; the row of a padded query is the same everywhere."""
    if keep is None:
        return values
    return torch.where(pairs(keep), values, torch.finfo(values.dtype).min / 2)


def _log_softmax(values: Tensor) -> Tensor:
    """A key that the model itself rules out is very small, not -inf: 0 · (-inf - -inf) would be NaN."""
    found = log_softmax(values, dim=-1)
    return found.clamp_min_(torch.finfo(found.dtype).min)
