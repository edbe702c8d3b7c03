"""Generalised Jensen-Shannon divergence of a language model's tokens: GKD, Agarwal et al. 2023 (2306.13649), equation 1.

    m = beta · p + (1 - beta) · q,    p the teacher's probabilities, q the student's
    loss = T² · Σ over tokens of (beta · KL(p ‖ m) + (1 - beta) · KL(q ‖ m)) / total

Divided by beta it becomes KL(p ‖ q) for beta → 0, divided by 1 - beta it becomes KL(q ‖ p) for beta → 1. The value is 0 at 0 and
at 1, which much code fills with these two limits; here they are refused, as `forward_kl` and `reverse_kl` are
there. DistiLLM's code names 1 - beta and has 0.1 as the teacher's share.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import kl
from lianzhi.distill.losses.tokens import mixture, token_mean


class JSDOptions(Config):
    """Options of `jsd`."""

    beta: float = Field(default=0.5, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "jsd",
    "generalised Jensen-Shannon divergence of the next token",
    paper="https://arxiv.org/abs/2306.13649",
    config=JSDOptions,
)
def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    total: float | Tensor | None = None,
    shift: bool = True,
) -> Tensor:
    """The divergence of teacher and student from their mixture: bounded, and symmetric at beta = 0.5.

    >>> import torch
    >>> student, teacher = torch.zeros(1, 2, 2), torch.tensor([0.75, 0.25]).log().expand(1, 2, 2)
    >>> round(jsd(student, teacher).item(), 4)        # of one position: the last one predicts no token that is known
    0.0338

    `beta` is the teacher's share of the mixture.

    Logits are (batch, tokens, vocabulary), labels and mask (batch, tokens). Labels only say which tokens are learned
    (those that are not -100); the mask is true for tokens that are not padding. With `shift`, as for a causal model,
    the logits at a position are about the next token; without it about its own. `total` is the number of tokens that
    count in the whole accumulated batch (`count_tokens`), by default of this call. With one output it is the mean
    squared error. No gradient goes to the teacher. The mean over no token is 0.

    Raises:
        RecipeError: the temperature is not above 0, or beta not between 0 and 1.
        DataError: logits, labels or mask have shapes that do not go together, or `total` is too small.
    """
    options = JSDOptions(beta=beta, temperature=temperature)
    beta = options.beta

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        mixed = mixture(teacher, student, beta)
        return beta * kl(teacher, mixed) + (1 - beta) * kl(student, mixed)

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
