"""The head of masked words runs on the tokens that are asked for, a sixth of all, while a model is trained.

The head is the widest product of a small model by far: hidden states times the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lianzhi.tasks.corpus.masking import NOT_ASKED


@contextmanager
def asked_only(model: nn.Module, labels: Any) -> Iterator[None]:
    """What a Hugging Face model's encoder gives its head is the (asked, hidden) rows of it, as a batch of one.

    The model's logits are then (1, asked, vocabulary), in the order of the labels. A model whose class is not the library's
    own may have a head that looks at several tokens, and runs as it is; so does one whose encoder returns no
    ``last_hidden_state``.
    """
    encoder = _encoder(model)
    tokens = labels["tokens"] if isinstance(labels, Mapping) else labels
    asked = tokens != NOT_ASKED
    if encoder is None or not bool(asked.any()):
        yield
        return

    def select(_module: nn.Module, _inputs: Any, found: Any) -> Any:
        hidden = getattr(found, "last_hidden_state", None)
        if isinstance(hidden, Tensor) and hidden.shape[:2] == asked.shape:
            found.last_hidden_state = hidden[asked][None]
        return found

    handle = encoder.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _encoder(model: nn.Module) -> nn.Module | None:
    """The part of a transformers model under its head."""
    if type(model).__module__.partition(".")[0] != "transformers":
        return None
    found = getattr(model, "base_model", None)
    return found if isinstance(found, nn.Module) and found is not model else None
