"""MiniLM: Wang et al. 2020 (2002.10957), equations 5 to 7, of the last layers of teacher and student.

    loss = KL(softmax(A_t) ‖ softmax(A_s)) + KL(softmax(V_t·V_tᵀ/√d_t) ‖ softmax(V_s·V_sᵀ/√d_s))

Each is the mean over heads and tokens. Teacher and student have as many heads, of any sizes; depth and width differ
freely, and no projection is needed.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.attention_kl import attention_kl
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.positions import PositionOptions
from lianzhi.distill.losses.relations import relation


@registry.register(
    "minilm",
    "KL divergence of attention, and of the relations between values",
    paper="https://arxiv.org/abs/2002.10957",
    config=PositionOptions,
)
def minilm(
    student_scores: Tensor,
    student_values: Tensor,
    teacher_scores: Tensor,
    teacher_values: Tensor,
    *,
    mask: Tensor | None = None,
    by_sample: bool = False,
) -> Tensor:
    """Make the student attend, and relate its values, as the teacher does.

    >>> import torch
    >>> scores, values = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 4)
    >>> minilm(scores, values, scores, values).item()
    0.0

    Scores before the softmax are (batch, heads, tokens, tokens), values (batch, heads, tokens, size); the mask is
    (batch, tokens), true where a token counts. With `by_sample` the mean of each sample is taken first. No gradient
    goes to the teacher.

    Raises:
        DataError: the numbers of heads or tokens differ, or the mask does not fit.
    """
    attention = attention_kl(student_scores, teacher_scores, mask=mask, by_sample=by_sample)
    student, teacher = (relation(values, mask=mask) for values in (student_values, teacher_values))
    return attention + attention_kl(student, teacher, mask=mask, by_sample=by_sample)
