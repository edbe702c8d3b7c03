"""Models that take tokens: their length is free as well as the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def are_tokens(example_inputs: Any) -> bool:
    """Whether inputs are token ids and what goes with them: a dict of whole numbers of shape (batch, tokens).

    >>> import torch
    >>> are_tokens({"input_ids": torch.ones(1, 7, dtype=torch.long)}), are_tokens(torch.zeros(1, 7))
    (True, False)
    """
    if not isinstance(example_inputs, dict) or "input_ids" not in example_inputs:
        return False
    shapes = {tuple(value.shape) for value in example_inputs.values() if isinstance(value, Tensor)}
    whole = all(
        isinstance(value, Tensor) and value.dim() == 2 and not value.dtype.is_floating_point
        for value in example_inputs.values()
    )
    return whole and len(shapes) == 1
