"""A state dict as a OneFlow checkpoint, in the form that `oneflow.save` of 0.5 and later has (version 1).

A folder a tensor with `meta` and `out`, and `pickled_data`, in which each tensor is a OneFlow `Tensor` or `Parameter`
that names its folder. The pickle is put together from its instructions: the classes that it names are OneFlow's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lianzhi import files
from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints.oneflow import PICKLE, VERSION
from lianzhi.models.checkpoints.oneflow_variables import DATA, DATA_TYPES, META

WRITTEN = (
    "kFloat",
    "kDouble",
    "kFloat16",
    "kInt8",
    "kUInt8",
    "kInt32",
    "kInt64",
    "kBool",
)  # OneFlow 0.9 loads these
KINDS = {DATA_TYPES[kind]: kind for kind in WRITTEN}
_FIXES = {torch.bfloat16: "tensor.float()", torch.int16: "tensor.int()"}


def write(state_dict: Mapping[str, Tensor], folder: PathLike, *, overwrite: bool = False) -> Path:
    """Write a checkpoint that `oneflow.load(folder)` reads, whole or not at all; return the folder.

    >>> import tempfile
    >>> from lianzhi.deploy import oneflow
    >>> with tempfile.TemporaryDirectory() as place:
    ...     folder = oneflow.write({"fc.weight": torch.ones(1, 2)}, place + "/checkpoint")
    ...     oneflow.read(folder)
    {'fc.weight': tensor([[1., 1.]])}

    On the other side: ``module.load_state_dict(oneflow.load(folder))``. An `nn.Parameter` becomes OneFlow's, any other
    tensor a plain one (`state_dict()` gives plain ones; `load_state_dict` takes both). A tensor that stands under two names is
    written once and is one tensor there. `overwrite` replaces a checkpoint that is there, and leaves other files in its folder.

    Raises:
        ArtifactError: the folder is not empty; a value is no tensor, or one without data; a type that OneFlow has not
            (bfloat16: OneFlow 0.9 does not load its own). Nothing is written then.
    """
    _check(state_dict, folder)
    with files.whole_folder(folder, overwrite=overwrite, owned=_owned(folder)) as temporary:
        places: dict[Any, str] = {}
        entries = []
        for name, tensor in state_dict.items():
            place = places.setdefault(_identity(tensor), f"tensor_{len(places)}")
            entries.append((name, place, isinstance(tensor, nn.Parameter)))
            if not (temporary / place).exists():
                _write_tensor(name, tensor, temporary / place)
        _flushed(temporary / PICKLE, _pickled(entries))
    return Path(folder)


def _check(state_dict: Mapping[str, Tensor], folder: PathLike) -> None:
    where = f"{os.fspath(folder)} cannot be written"
    if not isinstance(state_dict, Mapping):
        raise ArtifactError(
            f"{where}: give a state dict of names and tensors (model.state_dict()), not a {type(state_dict).__name__}"
        )
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not files.is_text(name):
            raise ArtifactError(f"{where}: {name!r:.80} is no name; names are text")
        if not isinstance(tensor, Tensor):
            raise ArtifactError(
                f"{where}: '{name:.80}' is a {type(tensor).__name__}, not a tensor; leave it out"
            )
        if tensor.dtype not in KINDS:
            fix = _FIXES.get(tensor.dtype, "another type")
            raise ArtifactError(
                f"{where}: '{name:.80}' has the type {tensor.dtype}, which OneFlow 0.9 does not load; "
                f"convert it first ({fix})"
            )
        reason = _without_data(tensor)
        if reason:
            raise ArtifactError(f"{where}: '{name:.80}' {reason}; give plain tensors with data")


def _without_data(tensor: Tensor) -> str | None:
    """Why a tensor has no values in row-major order, if that is so."""
    if nn.parameter.is_lazy(tensor):
        return "is of a lazy module that has not run yet"
    if tensor.device.type == "meta":
        return "is on the device 'meta', without data"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}"
    return None


def _owned(folder: PathLike) -> frozenset[str]:
    """The names in a folder that an older checkpoint there has, which overwriting removes."""
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return frozenset(
        name for name in found if name == PICKLE or re.fullmatch(r"((global|consistent)_)?tensor_\d+", name)
    )


def _identity(tensor: Tensor) -> Any:
    """Equal for two names of one tensor."""
    if not tensor.numel():
        return id(tensor)
    where = tensor.device, tensor.data_ptr(), tensor.is_neg()  # minus what lies there
    return *where, tensor.dtype, tensor.shape, tensor.stride()


def _write_tensor(name: str, tensor: Tensor, folder: Path) -> None:
    try:
        values = tensor.detach().resolve_neg().cpu().contiguous().numpy()
    except (RuntimeError, TypeError) as error:  # of a subclass that holds its values in another form
        raise ArtifactError(
            f"'{name:.80}' is a {type(tensor).__name__} that gives no plain values ({error!s:.200}); "
            f"convert it first (dequantize, or gather it)"
        ) from None
    folder.mkdir()
    dims = "".join(f"  dim: {dim}\n" for dim in tensor.shape)
    _flushed(folder / META, f"shape {{\n{dims}}}\ndata_type: {KINDS[tensor.dtype]}\n".encode())
    _flushed(folder / DATA, values)


def _flushed(path: Path, data: Any) -> None:
    """Inside a folder that is not yet in its place; flushed, so that a power cut leaves no half of it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _pickled(entries: list[tuple[str, str, bool]]) -> bytes:
    """``{"protocol_version": 1, "data": OrderedDict(name -> tensor)}`` in pickle's protocol 2."""
    parts = [b"\x80\x02}(", _text("protocol_version"), b"K", bytes([VERSION]), _text("data")]
    parts.append(b"ccollections\nOrderedDict\n)R(")
    seen: dict[str, int] = {}
    for name, place, is_parameter in entries:
        parts.append(_text(name))
        if place in seen:
            parts.append(b"j" + seen[place].to_bytes(4, "little"))
            continue
        seen[place] = len(seen)
        kind = b"coneflow.nn\nParameter\n" if is_parameter else b"coneflow\nTensor\n"
        parts.append(kind + b")\x81r" + seen[place].to_bytes(4, "little"))
        parts.append(b"}" + _text("path") + _text(place) + b"sb")
    return b"".join([*parts, b"uu."])


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return b"X" + len(data).to_bytes(4, "little") + data
