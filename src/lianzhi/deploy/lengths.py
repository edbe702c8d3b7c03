"""Models that take tokens: a capture whose length is free as well as its batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lianzhi.errors import GraphError
from lianzhi.graph import in_eval
from lianzhi.graph.trace import quiet


def are_tokens(example_inputs: Any) -> bool:
    """Whether inputs are token ids and what goes with them: a dict of whole numbers of shape (batch, tokens).

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


def export(model: nn.Module, example_inputs: dict[str, Tensor]) -> tuple[Any, Any]:
    """Trace a model in eval mode with free batch and length; return the program and what it returned.

    Raises:
        GraphError: the model fixes one of the two, or cannot be captured.
    """
    inputs = {name: _of_two(value) for name, value in example_inputs.items()}
    free = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in inputs}
    try:
        with in_eval(model), quiet(), torch.no_grad():
            returned = model(**inputs)
            program = torch.export.export(model, (), inputs, dynamic_shapes=free, strict=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise GraphError(
            f"{type(model).__name__} cannot be captured with a free batch and length of tokens "
            f"({type(error).__name__}: {reason}); a graph that was captured at one length has no other, so save "
            f"and export the model itself, or keep target: pytorch"
        ) from error
    return program, returned


def _of_two(value: Tensor) -> Tensor:
    """A batch of two and at least two tokens: sizes of one would be taken for constants."""
    value = torch.cat([value[:1], value[:1]])
    return value if value.shape[1] > 1 else torch.cat([value, value], 1)


def name_dimensions(proto: Any) -> None:
    """Call the free dimensions of inputs and outputs ``batch`` and, of inputs, ``length``."""
    for item in proto.graph.input:
        for dim, name in zip(item.type.tensor_type.shape.dim, ("batch", "length"), strict=False):
            if dim.dim_param:
                dim.dim_param = name
    for item in proto.graph.output:
        first = item.type.tensor_type.shape.dim[:1]
        if first and first[0].dim_param:
            first[0].dim_param = "batch"
