"""Forward KL of a language model's tokens: word-level distillation, Kim and Rush 2016 (1606.07947).

    loss = T² · Σ over tokens of KL(teacher ‖ student) / total

It is `kd` without labels, for predictions of the next token: the student must give weight wherever the teacher does.
The paper and the code of DistiLLM drop the teacher's entropy, a constant; here KL is complete, 0 for equal models.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lianzhi.config import Config
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import kl
from lianzhi.distill.losses.tokens import token_mean


class ForwardKLOptions(Config):
    """Options of `forward_kl`."""

    temperature: float = Field(default=1.0, gt=0)


@registry.register(
    "forward_kl",
    "KL(teacher ‖ student) of the next token",
    paper="https://arxiv.org/abs/1606.07947",
    config=ForwardKLOptions,
)
def forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    total: float | Tensor | None = None,
    shift: bool = True,
) -> Tensor:
    """KL(teacher ‖ student) at each token: cover all that the teacher would say.

    >>> import torch
    >>> student, teacher = torch.zeros(1, 2, 2), torch.tensor([0.75, 0.25]).log().expand(1, 2, 2)
    >>> round(forward_kl(student, teacher).item(), 4)        # of one position: the last one predicts no token that is known
    0.1308

    Logits are (batch, tokens, vocabulary), labels and mask (batch, tokens). Labels only say which tokens are learned
    (those that are not -100); the mask is true for tokens that are not padding. With `shift`, as for a causal model,
    the logits at a position are about the next token; without it about its own. `total` is the number of tokens that
    count in the whole accumulated batch (`count_tokens`), by default of this call. With one output it is the mean
    squared error. No gradient goes to the teacher. The mean over no token is 0.

    Raises:
        RecipeError: the temperature is not above 0.
        DataError: logits, labels or mask have shapes that do not go together, or `total` is too small.
    """
    options = ForwardKLOptions(temperature=temperature)
    return token_mean(
        lambda student, teacher: kl(teacher, student),
        student_logits,
        teacher_logits,
        labels,
        mask,
        temperature=options.temperature,
        total=total,
        shift=shift,
    )
