"""Relations between tokens: how alike their queries, keys or values are, as scores for a softmax (MiniLM)."""

from __future__ import annotations

import torch
from torch import Tensor

from lianzhi.distill.losses.parts import wide
from lianzhi.distill.losses.positions import as_bool
from lianzhi.errors import DataError

MOST_HEADS = 48


def relation(values: Tensor, heads: int | None = None, *, mask: Tensor | None = None) -> Tensor:
    """x·xᵀ/√size of each head: (batch, heads, tokens, tokens).

    >>> import torch
    >>> relation(torch.ones(1, 3, 8), heads=2).shape, relation(torch.ones(1, 4, 3, 2))[0, 0, 0, 0].item()
    (torch.Size([1, 2, 3, 3]), 1.4142135381698608)

    Values are (batch, heads, tokens, size), as `capture` gives them, or (batch, tokens, width). With `heads`, the
    heads are put side by side again and the width is split anew into as many relation heads. Where the mask
    (batch, tokens) is false, values are taken as zero.

    Raises:
        DataError: other shapes, or a width that the heads do not divide.
    """
    if heads is None and values.ndim == 4:
        split = wide(values)
    else:
        whole = side_by_side(values)
        heads = 1 if heads is None else heads
        if heads < 1 or whole.shape[-1] % heads:
            raise DataError(f"a width of {whole.shape[-1]} cannot be split into {heads} relation heads")
        split = wide(whole).unflatten(-1, (heads, -1)).transpose(1, 2)
    keep = as_bool(mask, (split.shape[0], split.shape[2]))
    if keep is not None:
        split = split.masked_fill(~keep[:, None, :, None], 0)
    with torch.autocast(split.device.type, enabled=False):  # it would multiply in half precision
        return (split * split.shape[-1] ** -0.5) @ split.transpose(-2, -1)


def side_by_side(values: Tensor) -> Tensor:
    """(batch, heads, tokens, size) as (batch, tokens, heads · size); (batch, tokens, width) as it is."""
    if values.ndim not in (3, 4):
        raise DataError(
            f"queries, keys or values have shape {list(values.shape)}; "
            f"they must be (batch, heads, tokens, size) or (batch, tokens, width)"
        )
    return values.transpose(1, 2).flatten(2) if values.ndim == 4 else values


def most_heads(student_width: int, teacher_width: int, most: int = MOST_HEADS) -> int:
    """The largest number of heads, `most` at most, that divides both widths.

    >>> most_heads(384, 312), most_heads(384, 768), most_heads(7, 13)
    (24, 48, 1)
    """
    return max(heads for heads in range(1, most + 1) if student_width % heads == 0 == teacher_width % heads)
