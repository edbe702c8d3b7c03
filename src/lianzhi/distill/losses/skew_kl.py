"""Skew KL of a language model's tokens: DistiLLM, Ko et al. 2024 (2402.03898).

    loss = T² · Σ over tokens of KL(p ‖ skew · p + (1 - skew) · q) / total                     p the teacher's,
    loss = T² · Σ over tokens of KL(q ‖ skew · q + (1 - skew) · p) / total   with `reverse`    q the student's

The mixture keeps the ratio of probabilities, and so the gradient, bounded where the student gives a token almost
nothing. Their code drops the teacher's entropy, a constant, without `reverse`; here KL is complete, 0 for equal models.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import kl
from lianzhi.distill.losses.tokens import mixture, token_mean


class SkewKLOptions(Config):
    """Options of `skew_kl`."""

    skew: float = Field(default=0.1, ge=0, lt=1)
    reverse: bool = False
    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "skew_kl",
    "KL of the next token to a mixture of teacher and student",
    paper="https://arxiv.org/abs/2402.03898",
    config=SkewKLOptions,
)
def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    skew: float = 0.1,
    reverse: bool = False,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    total: float | Tensor | None = None,
    shift: bool = True,
) -> Tensor:
    """KL from the teacher to a mixture that has a little of the teacher itself; `reverse`: from the student.

    >>> import torch
    >>> student, teacher = torch.zeros(1, 2, 2), torch.tensor([0.75, 0.25]).log().expand(1, 2, 2)
    >>> round(skew_kl(student, teacher).item(), 4)        # of one position: the last one predicts no token that is known
    0.107

    With a skew of 0 it is `forward_kl`, and with `reverse` `reverse_kl`.

    Logits are (batch, tokens, vocabulary), labels and mask (batch, tokens). Labels only say which tokens are learned
    (those that are not -100); the mask is true for tokens that are not padding. With `shift`, as for a causal model,
    the logits at a position are about the next token; without it about its own. `total` is the number of tokens that
    count in the whole accumulated batch (`count_tokens`), by default of this call. With one output it is the mean
    squared error. No gradient goes to the teacher. The mean over no token is 0.

    Raises:
        RecipeError: the temperature is not above 0, or skew not in [0, 1).
        DataError: logits, labels or mask have shapes that do not go together, or `total` is too small.
    """
    options = SkewKLOptions(skew=skew, reverse=reverse, temperature=temperature)

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        first, second = (student, teacher) if options.reverse else (teacher, student)
        return kl(first, mixture(first, second, options.skew) if options.skew else second)

    return token_mean(
        divergence,
        student_logits,
        teacher_logits,
        labels,
        mask,
        temperature=options.temperature,
        total=total,
        shift=shift,
    )
