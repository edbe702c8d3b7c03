"""One variable of OneFlow on disk: a folder with `meta` (its shape and type, in protobuf's text form) and `out` (its data).

    shape {
      dim: 64
      dim: 3
    }
    data_type: kFloat

`out` is the values in row-major order, little-endian, and nothing else. A bfloat16 variable is the exception: OneFlow
0.9 writes its values as float32 (and cannot load them again); both lengths are read.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch
from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError

DATA, META = "out", "meta"

DATA_TYPES = {
    "kChar": torch.int8,
    "kInt8": torch.int8,
    "kUInt8": torch.uint8,
    "kInt16": torch.int16,
    "kInt32": torch.int32,
    "kInt64": torch.int64,
    "kBool": torch.bool,
    "kFloat16": torch.float16,
    "kBFloat16": torch.bfloat16,
    "kFloat": torch.float32,
    "kDouble": torch.float64,
    "kComplex64": torch.complex64,
    "kComplex128": torch.complex128,
}
MAX_META = 1 << 14
MAX_DIMS = 20  # OneFlow's own limit
_SHAPE = re.compile(r"shape ?:? ?\{ ?((?:dim ?: ?-?\d{1,20} ?)*)\} ?data_type ?: ?(\w+)")


def read_variable(folder: Path, shown: str) -> Tensor:
    """Read one variable, in memory of its own; `shown` is what messages call it.

    Raises:
        ArtifactError: `meta` or `out` is missing, a link, or damaged, or the length of `out` is not what the
            shape and type need; compared before any memory is allocated.
    """
    dtype, shape = _described(_present(folder, META, shown), shown)
    path = _present(folder, DATA, shown)
    count = math.prod(shape)
    try:
        with open(path, "rb", buffering=0, opener=files.open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            wide = dtype == torch.bfloat16 and size == 4 * count
            if size != (4 * count if wide else dtype.itemsize * count):
                raise ArtifactError(
                    f"{path} has {size:,} bytes, and {shown} of shape {list(shape)} and type {dtype} has "
                    f"{dtype.itemsize * count:,}; it is cut off or damaged: restore it"
                )
            data = _allocated(size, path)
            view = memoryview(data.numpy())
            while view:
                read = file.readinto(view)
                if not read:
                    raise ArtifactError(f"{path} became shorter while it was read; read it again")
                view = view[read:]
    except OSError as error:
        raise files.explain(error, path, "read") from error
    return _typed(data, dtype, wide, path).reshape(shape)


def _present(folder: Path, name: str, shown: str) -> Path:
    path = files.member(folder, name)
    if not path.exists():
        raise ArtifactError(f"{path} is missing, and {shown} needs it; copy the whole checkpoint again")
    return path


def _allocated(size: int, path: Path) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError:
        raise ArtifactError(
            f"{path} has {size:,} bytes, and this machine has not the memory for it"
        ) from None


def _typed(data: Tensor, dtype: torch.dtype, wide: bool, path: Path) -> Tensor:
    """Bytes as values. Those that the type cannot hold are refused."""
    if dtype == torch.bool and data.numel() and int(data.max()) > 1:
        raise ArtifactError(f"{path} is damaged: a bool is neither 0 nor 1; restore it")
    if not wide:
        return data.view(dtype)
    bits = data.view(torch.int32)
    if bool((bits & 0xFFFF).any()):
        raise ArtifactError(f"{path} is damaged: its values are no bfloat16 values; restore it")
    return (bits >> 16).to(torch.int16).view(torch.bfloat16)


def _described(path: Path, shown: str) -> tuple[torch.dtype, tuple[int, ...]]:
    """Type and shape, from `meta`."""
    text = " ".join(files.read_text(path, MAX_META).split())
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ArtifactError(
            f"{path} is damaged: {shown} should be described by a shape and a data_type, "
            f"and here stands {text!r:.100}; restore it"
        )
    dims, kind = [int(dim) for dim in re.findall(r"-?\d+", match[1])], match[2]
    if kind not in DATA_TYPES:
        raise ArtifactError(
            f"{path}: {shown} has the type {kind:.40}, which is not read (known: {', '.join(DATA_TYPES)}); "
            f"save it as another type"
        )
    if any(dim < 0 for dim in dims) or len(dims) > MAX_DIMS or math.prod(max(dim, 1) for dim in dims) >> 60:
        raise ArtifactError(f"{path} is damaged: {shown} has the impossible shape {dims!s:.200}; restore it")
    return DATA_TYPES[kind], tuple(dims)
