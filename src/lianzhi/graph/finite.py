"""Weights that are numbers."""

from __future__ import annotations

from torch import Tensor, nn

from lianzhi.errors import GraphError


def check_values(model: nn.Module) -> None:
    """Raise `GraphError` for weights that are no numbers: they come of a training that failed, and nothing good comes of them.

    >>> check_values(nn.Linear(2, 2))
    """
    named: dict[str, Tensor] = dict(model.named_parameters())
    named.update((name, tensor) for name, tensor in model.named_buffers() if "running_" in name)
    for name, tensor in named.items():
        if not nn.parameter.is_lazy(tensor) and not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise GraphError(
                f"the model's '{name}' has NaN or infinite values, as after a training that went astray; "
                f"give weights that are numbers"
            )
