"""Weights from files into modules. Only tensors are read: no code in a file is ever run.

Everything is compared before anything is copied, so that a file that does not fit leaves the module as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from lianzhi import files
from lianzhi.errors import ArtifactError, listed
from lianzhi.models.checkpoints.kinds import PYTORCH, file_of_pytorch, kind_of
from lianzhi.models.checkpoints.opening import open_checkpoint
from lianzhi.models.checkpoints.pytorch import read_pytorch

PathLike = str | os.PathLike[str]

_COUNTER = "num_batches_tracked"  # BatchNorm's counter, which old files lack and inference never reads
_SHOWN = 4


def read_weights(path: PathLike) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU, from a file of PyTorch or safetensors, or a checkpoint of OneFlow or TensorFlow.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": {"module.bias": torch.ones(2)}}, folder + "/a.pth")
    ...     read_weights(folder + "/a.pth")
    {'bias': tensor([1., 1.])}

    That is a `.safetensors`, `.pt`, `.pth` or `.bin` file, whose names stay as they are but for the prefix ``module.`` that
    `DataParallel` puts before every one; the folder of a OneFlow checkpoint; or the prefix of a TensorFlow checkpoint's files.
    Of these two a BERT's tensors get the names of transformers, and what an optimizer keeps is left out.

    Raises:
        ArtifactError: nothing lies there, or it is damaged, hostile, or of another kind.
    """
    source = files.expanded(path)
    kind = kind_of(source)
    if kind == PYTORCH:
        return read_pytorch(file_of_pytorch(source) or source)
    return open_checkpoint(source, kind).tensors


def load_weights(module: nn.Module, path: PathLike) -> None:
    """Fill a module with the weights in a file, which must have its names and shapes, no more and no fewer.

    Raises:
        ArtifactError: naming the keys and shapes that differ; the module is unchanged.
    """
    tensors, own = read_weights(path), module.state_dict()
    problems = _differences(tensors, own)
    if problems:
        fix = (
            _fix(tensors, own) or "these are the weights of another model, or of another configuration of it"
        )
        raise ArtifactError(
            f"{os.fspath(path)} does not fit the {_name(module)}: {'; '.join(problems)}. {fix}"
        )
    module.load_state_dict(tensors, strict=False)


def _differences(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in own if name not in tensors and not name.endswith(_COUNTER)]
    extra = [name for name in tensors if name not in own]
    shapes = [
        f"'{name}' is {list(tensors[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    types = [
        f"'{name}' is {tensors[name].dtype} and should be {own[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    problems = []
    if missing:
        problems.append(f"missing {listed(missing)}")
    if extra:
        problems.append(f"not in the model: {listed(extra)}")
    for found in (shapes, types):
        if found:
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            problems.append(", ".join(found[:_SHOWN]) + more)
    return problems


def _fix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """What to do, where the only difference is the number of classes, or heads used in training only."""
    if any(name not in tensors and not name.endswith(_COUNTER) for name in own):
        return None
    extra = {name.split(".")[0] for name in tensors if name not in own}
    if extra == {"AuxLogits"}:
        return "The file has the auxiliary head: make the model with aux=True"
    head = list(own)[-1].rpartition(".")[0]
    differing = [name for name in own if tensors.get(name, own[name]).shape != own[name].shape]
    if extra or not differing or any(name.rpartition(".")[0] != head for name in differing):
        return None
    sizes = {(tensors[name].shape[:1], own[name].shape[:1]) for name in differing}
    if len(sizes) != 1 or any(tensors[name].shape[1:] != own[name].shape[1:] for name in differing):
        return None
    theirs, ours = (list(size) for size in sizes.pop())
    if not theirs or not ours:
        return None
    return (
        f"The file's classifier has {theirs[0]} classes and the model's {ours[0]}: make the model "
        f"with num_classes={theirs[0]}; for {ours[0]} other classes add head: new in a recipe, or replace its layer '{head}' in Python, and train it"
    )


def _name(module: nn.Module) -> str:
    zoo = vars(module).get("zoo")
    return f"model '{zoo['name']}'" if isinstance(zoo, dict) else type(module).__name__
