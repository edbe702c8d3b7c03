"""Mean squared error of embeddings: TinyBERT, Jiao et al. 2020 (1909.10351), equation 9.

    loss = MSE(E_s · W, E_t)

E is what goes into the first block: words, positions and segments, after their norm. It is `hidden_mse` of layer 0.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.hidden_mse import Projection, hidden_mse
from lianzhi.distill.losses.positions import PositionOptions


@registry.register(
    "embedding_mse",
    "mean squared error of embeddings, through a projection of the student's",
    paper="https://arxiv.org/abs/1909.10351",
    config=PositionOptions,
)
def embedding_mse(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    projection: Projection | None = None,
    mask: Tensor | None = None,
    by_sample: bool = False,
) -> Tensor:
    """Make the student's embeddings, projected, those of the teacher.

    >>> import torch
    >>> embedding_mse(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0)).item()
    9.0

    Embeddings are (batch, tokens, width); mask, projection, `by_sample` and errors are those of `hidden_mse`.
    """
    return hidden_mse(
        student_embeddings, teacher_embeddings, projection=projection, mask=mask, by_sample=by_sample
    )
