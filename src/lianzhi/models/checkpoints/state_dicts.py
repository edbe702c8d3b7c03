"""The state dict in what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from lianzhi.errors import ArtifactError, listed
from lianzhi.files.disk import PathLike

T = TypeVar("T")
NAMES = ("state_dict", "model")


def find_state_dict(
    source: PathLike,
    loaded: Any,
    tensor: type[T] = Tensor,  # type: ignore[assignment]
) -> tuple[dict[str, T], dict[str, str]]:
    """The tensors by name: of `loaded` itself, or of a dict in it under one of `NAMES`; and what is beside that, left out.

    >>> import torch
    >>> find_state_dict("a.pth", {"model": {"bias": torch.ones(2)}, "epoch": 3})
    ({'bias': tensor([1., 1.])}, {'epoch': "beside 'model'"})

    `tensor` is the type that counts as one, for readers that find references first. Raises `ArtifactError` that names
    what is no tensor; `source` stands in the message.
    """
    left_out: dict[str, str] = {}
    if isinstance(loaded, Mapping):
        chosen = next((name for name in NAMES if isinstance(loaded.get(name), Mapping)), None)
        if chosen is not None:
            left_out = {str(name): f"beside '{chosen}'" for name in loaded if name != chosen}
            loaded = loaded[chosen]
    if not isinstance(loaded, Mapping):
        what = "single tensor" if isinstance(loaded, tensor) else type(loaded).__name__
        raise ArtifactError(f"{source} holds a {what}, not a state dict of names and tensors")
    strange = [name for name, value in loaded.items() if not isinstance(value, tensor)]
    if strange:
        raise ArtifactError(
            f"{source}: {listed(strange)} {'is' if len(strange) == 1 else 'are'} no tensor; give a state dict, "
            f"or a dict with one under 'state_dict' or 'model'"
        )
    tensors = {str(name): value for name, value in loaded.items()}
    if len(tensors) != len(loaded):
        raise ArtifactError(f"{source}: two of its tensors have the same name, once as a number; rename one")
    return tensors, left_out
