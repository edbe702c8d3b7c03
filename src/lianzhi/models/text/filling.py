"""Weights into a Hugging Face classifier: the body must be the file's, the head may be new, and both are said.

A checkpoint of pre-training has other heads than a classifier's, and one of a bare model has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from lianzhi.errors import ArtifactError, listed
from lianzhi.models.checkpoints.opening import open_checkpoint
from lianzhi.models.weights import PathLike


def fill_from_file(model: nn.Module, place: PathLike) -> tuple[str, ...]:
    """Read one file or checkpoint into the model; return what was not there, or was left out, and what else to know.

    Raises:
        ArtifactError: it is none, is damaged, or is of another model; the model is unchanged.
    """
    checkpoint = open_checkpoint(place, heads=getattr(model.config, "num_attention_heads", None))
    own, tensors = model.state_dict(), _with_prefix(model, checkpoint.tensors)
    for name, tensor in tensors.items():
        if name in own and tensor.is_floating_point() != own[name].is_floating_point():
            raise ArtifactError(f"{place}: '{name}' is {tensor.dtype} and should be {own[name].dtype}")
    other = {
        name: tuple(tensors[name].shape)
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    }
    missing, left = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    found = fill(model, tensors, Path(place), missing=missing, other=other, left=left)
    return (*found, *checkpoint.notes)


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    place: Path,
    *,
    missing: Collection[str],
    other: Mapping[str, tuple[int, ...]],
    left: Collection[str],
) -> tuple[str, ...]:
    """Copy `tensors` into the model but for the names that are `missing` or of `other` shapes; return remarks.

    Raises:
        ArtifactError: other sizes in the body, or a body of which most is missing; the model is unchanged.
    """
    own = model.state_dict()
    fresh = sorted({name for name in missing if name in own} | other.keys())
    _check_body(model, place, fresh, other)
    kept = {name: value for name, value in tensors.items() if name in own and name not in fresh}
    model.load_state_dict(kept, strict=False)
    remarks = []
    if fresh:
        remarks.append(f"{listed(fresh)}: newly initialised, since {place.name or place} has no such weights")
    if left:
        remarks.append(f"{listed(sorted(left))}: left out, the model has no place for them")
    return tuple(remarks)


def _with_prefix(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of a bare model's file with the prefix that the classifier's body has."""
    own, prefix = model.state_dict(), f"{getattr(model, 'base_model_prefix', '')}."
    if any(name.startswith(prefix) for name in tensors):
        return tensors
    return {prefix + name if prefix + name in own else name: tensor for name, tensor in tensors.items()}


def _check_body(
    model: nn.Module, place: Path, fresh: list[str], other: Mapping[str, tuple[int, ...]]
) -> None:
    """The head may be new, and a layer of the body may; a body that is mostly new is another model's."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = model.state_dict()
    body = [name for name in own if name.startswith(prefix)]
    for name, shape in other.items():
        if name in body:
            raise ArtifactError(
                f"{place}: '{name}' is {list(shape)} in the file and should be {list(own[name].shape)}; "
                f"the config asks for other sizes than the weights have"
            )
    if sum(name in body for name in fresh) > len(body) / 2:
        raise ArtifactError(
            f"{place}: the file lacks {listed([name for name in fresh if name in body])}; "
            f"these are the weights of another model than a {type(model).__name__}"
        )
