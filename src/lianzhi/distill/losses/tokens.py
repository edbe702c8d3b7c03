"""What the losses of language models share: which predictions count, and by what their sum is divided.

A causal language model's logits at position i are about token i + 1, so with `shift` position i counts where token
i + 1 has a label (not -100) and neither token is padding; the last position never counts. A batch that is split into
parts, or spread over processes, gives the gradient of the whole when each part is divided by the tokens of all of
them: that is `total`. The mean of the parts' means would weigh a token of a short part more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lianzhi.distill.losses.parts import (
    log_probabilities,
    mean_or_zero,
    require_same_shape,
    squared_difference,
    valid,
)
from lianzhi.errors import DataError

IGNORED = -100


def count_tokens(labels: Tensor | None = None, mask: Tensor | None = None, *, shift: bool = True) -> int:
    """How many predictions count: what to add up over the parts of a batch, for `total`.

    >>> count_tokens(torch.tensor([[5, 6, 7, -100], [-100, 8, 9, 2]]))
    5
    >>> count_tokens(mask=torch.tensor([[1, 1, 1, 0]]), shift=False)
    3

    Labels and mask are (batch, tokens), as the losses take them.
    """
    given = labels if labels is not None else mask
    if given is None:
        raise DataError("count_tokens needs labels, a mask or both, of shape (batch, tokens)")
    return int(counted(given.shape, given.device, labels, mask, shift).sum())


def counted(
    shape: torch.Size, device: torch.device, labels: Tensor | None, mask: Tensor | None, shift: bool
) -> Tensor:
    """Which positions count, (batch, tokens) of bool.

    Raises:
        DataError: labels or mask are not of that shape.
    """
    for name, value in (("labels", labels), ("mask", mask)):
        if value is not None and value.shape != shape:
            raise DataError(f"the {name} have shape {list(value.shape)}; they must have {list(shape)}")
    real = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.to(torch.bool)
    wanted = real if labels is None else real & (labels != IGNORED)
    if not shift:
        return wanted
    counts = torch.zeros(shape, dtype=torch.bool, device=device)
    counts[..., :-1] = real[..., :-1] & wanted[..., 1:]
    return counts


def token_mean(
    divergence: Callable[[Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    mask: Tensor | None,
    *,
    temperature: float,
    total: float | Tensor | None,
    shift: bool,
) -> Tensor:
    """T² times `divergence(student, teacher)` of log-probabilities (n, vocabulary), summed and divided by `total`.

    Raises:
        DataError: shapes do not go together, or `total` is less than the tokens that count here.
    """
    require_same_shape(student_logits, teacher_logits)
    if student_logits.ndim < 3:
        raise DataError(
            f"the logits have shape {list(student_logits.shape)}; a language model's are (batch, tokens, vocabulary)"
        )
    counts = counted(student_logits.shape[:-1], student_logits.device, labels, mask, shift)
    student, teacher, _ = valid(student_logits, teacher_logits.detach(), None, counts)
    if student.shape[-1] == 1:
        values = squared_difference(student, teacher)
    else:
        values = temperature**2 * divergence(
            log_probabilities(student, temperature), log_probabilities(teacher, temperature)
        )
    if total is None:
        return mean_or_zero(values)
    if total < values.numel():
        raise DataError(
            f"total is {float(total):g}, and {values.numel()} tokens count in this part alone; "
            f"give the number of the whole accumulated batch (count_tokens, added up)"
        )
    return values.sum() / max(total, 1)


def mixture(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """The logarithm of weight · exp(first) + (1 - weight) · exp(second), for 0 < weight < 1."""
    share = torch.tensor(weight, dtype=first.dtype, device=first.device)
    return torch.logaddexp(first + share.log(), second + (1 - share).log())
