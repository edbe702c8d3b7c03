"""What float16 holds of a tensor: nothing beyond 65,504, and few digits or none of one whose values are all tiny.

A tiny value beside larger ones becomes zero without harm: what is lost is at most the 2^-11 of the largest that rounding takes
of that one too. A tensor of tiny values alone would lose what it says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 2.0**-14  # of float16 with all its digits
NAMED = 3  # names that are shown


def fits_float16(tensor: Tensor) -> bool:
    """Whether all values that are finite stay so as float16.

    >>> fits_float16(torch.tensor([1.0, -torch.inf])), fits_float16(torch.tensor([1e6]))
    (True, False)
    """
    return torch.equal(tensor.detach().half().isfinite(), tensor.isfinite())


def fades_in_float16(tensor: Tensor) -> bool:
    """Whether float16 would take digits of the largest value, because all are below 6.1e-5.

    >>> fades_in_float16(torch.full((5,), 1e-8)), fades_in_float16(torch.tensor([1.0, 1e-8]))
    (True, False)
    """
    values = tensor.detach()
    sizes = values[values.isfinite()].abs()
    if not len(sizes) or not 0 < float(sizes.max()) < SMALLEST:
        return False
    return not torch.equal(sizes.half().to(sizes.dtype), sizes)


def kept(names: Sequence[str]) -> str:
    """What a report says of tensors that stay as they are.

    >>> kept(["bias"])
    "not rounded to float16, in which they would fade, since all their values are below 6.1e-5: 'bias'"
    """
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    shown = ", ".join(f"'{name}'" for name in names[:NAMED])
    return f"not rounded to float16, in which they would fade, since all their values are below 6.1e-5: {shown}{more}"
