"""The mean over samples of what is compared in logits, of one answer a sample or of one a token.

Of one answer a token, each sample's own mean over the tokens that count is taken first: so parts of a batch, weighed by their
samples, give the gradient of the whole, and padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lianzhi.distill.losses.parts import require_same_shape
from lianzhi.distill.losses.positions import as_bool, mean_of

Rows = Callable[[Tensor, Tensor], Tensor]


def mean_by_sample(rows: Rows, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of `rows`, which gives numbers (…) of logits (…, classes); `mask` (batch, tokens) is that of tokens.

    >>> import torch
    >>> student, teacher = torch.zeros(2, 2, 1), torch.tensor([[[1.0], [3.0]], [[2.0], [9.0]]])
    >>> mask = torch.tensor([[1, 1], [1, 0]])
    >>> mean_by_sample(lambda own, theirs: (own - theirs).square().squeeze(-1), student, teacher, mask).item()
    4.5

    Raises:
        DataError: the logits have other shapes, or the mask is not of their tokens.
    """
    require_same_shape(student, teacher)
    keep = None
    if student.ndim > 2 and mask is not None:
        keep = as_bool(mask, tuple(student.shape[:-1]))
        assert keep is not None
        student, teacher = (logits.masked_fill(~keep.unsqueeze(-1), 0) for logits in (student, teacher))
    return mean_of(rows(student, teacher.detach()), keep, by_sample=True)
