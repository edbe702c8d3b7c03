"""What `pack` is given: tensors by name, their architecture, and which of them are weights that may be pruned and shared."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from lianzhi import artifact, files
from lianzhi.codebook.container import is_packed
from lianzhi.codebook.sharing import bake, is_shared
from lianzhi.errors import ArtifactError, GraphError

Source: TypeAlias = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
NAMED = 8  # of the tensors that a note names


@dataclass(frozen=True)
class Opened:
    """Tensors by name, the architecture if there is one, and the names of parameters; None where nobody can know them."""

    tensors: Mapping[str, Tensor]
    architecture: Any = None
    parameters: Collection[str] | None = None


@contextlib.contextmanager
def opened(model: Source, example_inputs: Any) -> Iterator[Opened]:
    """The source, open as long as its tensors are used. Raises `ArtifactError` for what is none."""
    if isinstance(model, nn.Module):
        model = bake(copy.deepcopy(model)) if is_shared(model) else model
        yield _of_module(model, example_inputs)
    elif example_inputs is not None:
        raise ArtifactError(
            "example_inputs are of a module, and this is none; give the module itself, or leave them out"
        )
    elif isinstance(model, Mapping):
        yield Opened(_by_name(model))
    elif not isinstance(model, (str, os.PathLike)):
        raise ArtifactError(
            f"a {type(model).__name__} cannot be packed; give a module, a state dict, an artifact folder or a file"
        )
    elif Path(model).is_dir():
        yield Opened(*artifact.stored(Path(model)))
    elif is_packed(model):
        raise ArtifactError(
            f"{model} is packed already; unpack it first: "
            f"lianzhi unpack {model} -o FOLDER (or FILE.safetensors)"
        )
    else:
        yield Opened(_of_file(model))


def _of_module(model: nn.Module, example_inputs: Any) -> Opened:
    guessed = artifact.image_inputs(model) if example_inputs is None else None
    inputs = guessed if example_inputs is None else example_inputs
    # an image model of the zoo may have been changed until it takes other images
    refused = () if guessed is None else (GraphError,)
    if inputs is not None:
        with contextlib.suppress(*refused), tempfile.TemporaryDirectory() as place:
            folder = artifact.save(model, Path(place) / "model", example_inputs=inputs)
            return Opened(*artifact.stored(folder, held=model.state_dict()))
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return Opened(_by_name(model.state_dict()), None, names)


def _of_file(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, in the order that it says; those that it says to be one are one, unless changed since."""
    tensors = files.read_tensors(path)
    owners = files.owners_in(path)
    ordered = {name: tensors[name] for name in owners} | tensors
    for name, owner in owners.items():
        if owner != name and files.same_bits(ordered[name], ordered[owner]):
            ordered[name] = ordered[owner]
    return ordered


def _by_name(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors at once: one that is made on access and freed again would leave its place in memory to the next."""
    tensors = dict(state.items())
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ArtifactError(f"{name!r:.80} is a {type(tensor).__name__}; give tensors by name")
    return tensors


def owners_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name the first name of the same tensor: the same memory, seen the same way.

    >>> import torch
    >>> weight = torch.ones(2, 2)
    >>> owners_of({"embed": weight, "head": weight, "bias": torch.ones(2)})
    {'embed': 'embed', 'head': 'embed', 'bias': 'bias'}
    """
    first: dict[Any, str] = {}
    owners = {}
    for name, tensor in state.items():
        seen: Any = id(tensor)
        if tensor.numel() and tensor.data_ptr():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
            seen = (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())
        owners[name] = first.setdefault(seen, name)
    return owners


def weight_names(source: Opened, owners: Mapping[str, str]) -> dict[str, list[str]]:
    """All names of each floating parameter of two or more dimensions, by its first one.

    Where nobody can know the parameters, every such tensor counts as one.

    >>> import torch
    >>> state = {"weight": torch.ones(2, 2), "mask": torch.ones(2, 2)}
    >>> weight_names(Opened(state), owners_of(state)), weight_names(Opened(state, None, {"weight"}), owners_of(state))
    ({'weight': ['weight'], 'mask': ['mask']}, {'weight': ['weight']})
    """
    names: dict[str, list[str]] = {}
    for name, tensor in source.tensors.items():
        known = source.parameters is None or name in source.parameters
        if known and tensor.is_floating_point() and tensor.dim() >= 2:
            names.setdefault(owners[name], []).append(name)
    return names


def note_of(source: Opened, changed: Collection[str]) -> str:
    """What to say of the tensors that were pruned or shared: that there were none, or which, if some may be no parameters."""
    if not changed:
        return "nothing was pruned or shared, for no floating parameter has two or more dimensions"
    if source.parameters is not None:
        return ""
    # what is called a weight is one; a mask is seen first
    names = sorted(changed, key=lambda name: name.endswith("weight"))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    shown = ", ".join(f"'{name}'" for name in names[:NAMED])
    return (
        f"pruned or shared: {shown}{more} ({len(names)} tensors in all); tensors alone do not say which of them are "
        f"buffers: give the module or its artifact folder, which do, if one of these is no weight"
    )
