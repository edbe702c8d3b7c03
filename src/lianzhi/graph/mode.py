"""A model in eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in eval mode, and every module of it back in its own mode at the end.

    >>> layer = nn.Dropout()
    >>> with in_eval(layer):
    ...     print(layer.training)
    False
    >>> layer.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    if not any(training for _, training in modes):
        yield model
        return
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:  # a module comes before those in it, which its own switch changes too
            if module.training != training:
                module.train(training)
