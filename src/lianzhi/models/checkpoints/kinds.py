"""Which framework a checkpoint is of, from what lies at its place; nothing but names, and the first or last bytes of a file, are read."""

from __future__ import annotations

from pathlib import Path

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError, did_you_mean
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints.oneflow import is_oneflow
from lianzhi.models.checkpoints.pytorch import PICKLED, SAFE
from lianzhi.models.checkpoints.tensorflow_places import find_stem, is_first_format, refuse_first_format

ONEFLOW, PYTORCH, TENSORFLOW = KINDS = ("oneflow", "pytorch", "tensorflow")
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # of Hugging Face models
_WHAT = (
    "give a OneFlow checkpoint's folder or file, a PyTorch file (.pt, .pth, .bin, .safetensors), or the prefix of a TensorFlow "
    "checkpoint's .index and .data files"
)


def check_kind(kind: str) -> str:
    """The kind, or `RecipeError` for one that there is not."""
    if kind not in KINDS:
        raise RecipeError(f"'{kind}' is no kind of checkpoint{did_you_mean(kind, KINDS)}")
    return kind


def kind_of(place: PathLike) -> str:
    """`oneflow`, `pytorch` or `tensorflow`.

    >>> kind_of("model.pt")
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: model.pt: no such weights file or checkpoint; check the path

    Raises:
        ArtifactError: nothing lies there, or it is of no kind that is read.
    """
    path = files.expanded(place)
    if is_oneflow(path):
        return ONEFLOW
    if find_stem(path) is not None:
        return TENSORFLOW
    if file_of_pytorch(path) is not None:
        return PYTORCH
    if not path.exists():
        raise ArtifactError(f"{path}: no such weights file or checkpoint; check the path")
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder without a checkpoint that is known; {_WHAT}")
    refuse_first_format(path)
    raise ArtifactError(f"{path}: weights are not read from '{path.suffix or path.name}' files; {_WHAT}")


def file_of_pytorch(path: Path) -> Path | None:
    """The file of PyTorch at a place: itself, or the one of a Hugging Face folder; None where there is none."""
    if path.is_dir():
        return next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if path.suffix not in (SAFE, *PICKLED) or not path.exists():
        return None
    return None if path.suffix == ".ckpt" and is_first_format(path) else path
