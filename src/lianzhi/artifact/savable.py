"""Whether a model can be saved at all: found out before a run of hours, not at its end."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from lianzhi.artifact import skeleton
from lianzhi.artifact.dry_run import dry_run
from lianzhi.artifact.writing import described
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.files import TensorInfo
from lianzhi.graph.serialize import from_json


def check_savable(model: nn.Module, example_inputs: Any) -> None:
    """Raise a `GraphError` that says why `save` would refuse the model, or what a step makes of it. Writes nothing.

    >>> import torch
    >>> check_savable(nn.Linear(4, 3), torch.zeros(1, 4))

    A model of the zoo is saved by its name; of any other the captured graph is written, read and run here, on
    tensors without memory.
    """
    if skeleton.describe(model) is not None:
        return
    try:
        data, tensors, ties, inputs = described(model, example_inputs)
        table = {name: TensorInfo(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        dry_run(functools.partial(from_json, data), table, ties, inputs)
    except ArtifactError as error:
        raise GraphError(
            f"{type(model).__name__} could not be saved when it is compressed: {error}. Change that in the model first"
        ) from None
