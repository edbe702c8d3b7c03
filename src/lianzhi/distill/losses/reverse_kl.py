"""Reverse KL of a language model's tokens: MiniLLM, Gu et al. 2023 (2306.08543), token by token.

    loss = T² · Σ over tokens of KL(student ‖ teacher) / total

The student is punished for saying what the teacher would not, and need not say all that the teacher would. MiniLLM
takes the divergence of whole sequences, by sampling and policy gradients; this is the exact one of each token for the
text at hand, as in GKD (2306.13649) at beta = 1 and DistiLLM.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import kl
from lianzhi.distill.losses.tokens import token_mean


class ReverseKLOptions(Config):
    """Options of `reverse_kl`."""

    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "reverse_kl",
    "KL(student ‖ teacher) of the next token",
    paper="https://arxiv.org/abs/2306.08543",
    config=ReverseKLOptions,
)
def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    total: float | Tensor | None = None,
    shift: bool = True,
) -> Tensor:
    """KL(student ‖ teacher) at each token: say nothing that the teacher would not.

    >>> import torch
    >>> student, teacher = torch.zeros(1, 2, 2), torch.tensor([0.75, 0.25]).log().expand(1, 2, 2)
    >>> round(reverse_kl(student, teacher).item(), 4)        # of one position: the last one predicts no token that is known
    0.1438

    Logits are (batch, tokens, vocabulary), labels and mask (batch, tokens). Labels only say which tokens are learned
    (those that are not -100); the mask is true for tokens that are not padding. With `shift`, as for a causal model,
    the logits at a position are about the next token; without it about its own. `total` is the number of tokens that
    count in the whole accumulated batch (`count_tokens`), by default of this call. With one output it is the mean
    squared error. No gradient goes to the teacher. The mean over no token is 0.

    Raises:
        RecipeError: the temperature is not above 0.
        DataError: logits, labels or mask have shapes that do not go together, or `total` is too small.
    """
    options = ReverseKLOptions(temperature=temperature)
    return token_mean(
        kl,
        student_logits,
        teacher_logits,
        labels,
        mask,
        temperature=options.temperature,
        total=total,
        shift=shift,
    )
