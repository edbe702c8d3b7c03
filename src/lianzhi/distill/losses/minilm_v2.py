"""MiniLMv2: Wang et al. 2021 (2012.15828), equations 4 to 7.

    loss = Σ over x in Q, K, V of KL(softmax(x_t·x_tᵀ/√d_r) ‖ softmax(x_s·x_sᵀ/√d_r))

The heads are put side by side and split anew into relation heads, as many for teacher and student, so that both may
have any number of heads. Each term is the mean over relation heads and tokens; all three have weight 1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lianzhi.distill.losses.attention_kl import attention_kl
from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.positions import PositionOptions
from lianzhi.distill.losses.relations import most_heads, relation, side_by_side


class MiniLMv2Options(PositionOptions):
    """Options of `minilm_v2`."""

    relation_heads: int | None = Field(
        default=None, gt=0, description="default: the most, up to 48, that fit"
    )


@registry.register(
    "minilm_v2",
    "KL divergence of the relations between queries, keys and values",
    paper="https://arxiv.org/abs/2012.15828",
    config=MiniLMv2Options,
)
def minilm_v2(
    student_queries: Tensor,
    student_keys: Tensor,
    student_values: Tensor,
    teacher_queries: Tensor,
    teacher_keys: Tensor,
    teacher_values: Tensor,
    *,
    relation_heads: int | None = None,
    mask: Tensor | None = None,
    by_sample: bool = False,
) -> Tensor:
    """Make the student's tokens relate to one another as the teacher's do.

    >>> import torch
    >>> student, teacher = torch.randn(3, 1, 5, 12).unbind(), torch.randn(3, 1, 8, 5, 3).unbind()
    >>> minilm_v2(*student, *teacher).item() > 0                          # 12 relation heads: 12 and 24 are split
    True
    >>> minilm_v2(*teacher, *teacher).item()
    0.0

    Queries, keys and values are (batch, heads, tokens, size), as `capture` gives them, or (batch, tokens, width); the
    mask is (batch, tokens), true where a token counts. The relation heads are the largest number, 48 at most, that
    divides both widths. With `by_sample` the mean of each sample is taken first. No gradient goes to the teacher.

    Raises:
        RecipeError: the relation heads are not above 0.
        DataError: the tokens differ, the mask does not fit, or the relation heads do not divide a width.
    """
    relation_heads = MiniLMv2Options(relation_heads=relation_heads).relation_heads
    sides = (
        (student_queries, teacher_queries),
        (student_keys, teacher_keys),
        (student_values, teacher_values),
    )
    terms = [
        relation_kl(*pair, relation_heads=relation_heads, mask=mask, by_sample=by_sample) for pair in sides
    ]
    return torch.stack(terms).sum()


def relation_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    relation_heads: int | None = None,
    mask: Tensor | None = None,
    by_sample: bool = False,
) -> Tensor:
    """The term of the queries, of the keys or of the values alone."""
    heads = relation_heads or common_heads(student, teacher)
    related = (relation(values, heads, mask=mask) for values in (student, teacher))
    return attention_kl(*related, mask=mask, by_sample=by_sample)


def common_heads(student: Tensor, teacher: Tensor) -> int:
    """The relation heads of two tensors of queries, keys or values."""
    return most_heads(side_by_side(student).shape[-1], side_by_side(teacher).shape[-1])
