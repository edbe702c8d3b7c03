"""Tensors in a safetensors file, whose header is checked before any tensor is allocated."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike, explain, writing
from lianzhi.files.strict_json import parse_json

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
MAX_HEADER = 1 << 26
MAX_DIMS = 16
METADATA = "__metadata__"  # the header's one key that is no tensor
OWNERS = "lianzhi.owners"  # in the metadata
FORMAT = {"format": "pt"}  # without it other libraries refuse a file that has metadata


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def write_tensors(
    path: PathLike, tensors: Mapping[str, Tensor], *, owners: Mapping[str, str] | None = None
) -> Path:
    """Write tensors, whole or not at all. Each is written on its own, strides are not kept.

    The format has an order of its own, and no tensor of two names. `owners` say both in the metadata, for `owners_in`: all names,
    in their order, each with the name whose tensor it is, its own where it is no other's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_tensors(folder + "/a.safetensors", {"weight": torch.ones(2)})
    ...     read_tensors(file)
    {'weight': tensor([1., 1.])}
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    for name, tensor in tensors.items():
        if name == METADATA:
            raise ArtifactError(
                f"{os.fspath(path)}: a tensor is called '{METADATA}', which in this format is the name of something else; "
                f"rename it"
            )
        if tensor.dtype not in DTYPES.values():
            raise ArtifactError(f"{os.fspath(path)}: '{name}' has type {tensor.dtype}, which cannot be saved")
    owned: dict[int, str] = {}
    plain = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        first = owned.setdefault(value.untyped_storage().data_ptr(), name) == name
        plain[name] = value if whole and first else value.clone(memory_format=torch.contiguous_format)
    with writing(path) as temporary:
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(plain, temporary, {**FORMAT, OWNERS: json.dumps(dict(owners))} if owners else None)
            temporary.chmod(mode)  # safetensors leaves files that only their owner can read
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise ArtifactError(f"{os.fspath(path)} cannot be written: {error}") from error
            raise OSError(int(number[1]), str(error)) from error
    return Path(path)


def read_tensors(path: PathLike, *, held: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read all tensors, in memory of their own. A damaged file is refused before memory is allocated.

    One that `held` has under its name, bit for bit, is taken from there and needs no memory.
    """
    from safetensors import SafetensorError, safe_open

    table = tensor_table(path)
    try:
        with safe_open(path, "pt") as file:
            # clones, for the library's tensors may be views of the file, which may be replaced
            tensors = {name: _own(file.get_tensor(name), (held or {}).get(name)) for name in table}
    except OSError as error:
        raise explain(error, path, "read") from error
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise ArtifactError(f"{os.fspath(path)} is damaged: {str(error)[:200]}; restore it") from None
    for name, info in table.items():
        if tensors[name].dtype != info.dtype or tuple(tensors[name].shape) != info.shape:
            raise ArtifactError(
                f"{os.fspath(path)} is damaged: '{name}' is not what the header says; restore it"
            )
    return tensors


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same bit for bit; False for one that is not plain in the CPU's memory.

    >>> same_bits(torch.zeros(2), torch.zeros(2)), same_bits(torch.zeros(2), -torch.zeros(2))
    (True, False)
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if any(
        x.device.type != "cpu" or not x.is_contiguous() or x.is_conj() or x.is_neg() for x in (one, other)
    ):
        return False
    return torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def _own(read: Tensor, held: Tensor | None) -> Tensor:
    return held.detach() if held is not None and same_bits(held, read) else read.clone()


def owners_in(path: PathLike) -> dict[str, str]:
    """The names of a file in the order that `write_tensors` was told, each with its owner; empty for a file of other makers.

    Names that are gone, since the file was changed, are left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same = torch.ones(2)
    ...     owners = {"table": "table", "head": "table"}
    ...     owners_in(write_tensors(folder + "/a.safetensors", {"table": same, "head": same}, owners=owners))
    {'table': 'table', 'head': 'table'}
    """
    _, entries, metadata = _described(path, _refusal(path))
    owners = parse_json(metadata.get(OWNERS, "{}"), f"{os.fspath(path)}, {OWNERS},")
    if not isinstance(owners, dict) or not all(isinstance(owner, str) for owner in owners.values()):
        raise _refusal(path)(f"{OWNERS} of its metadata is no table of names")
    return {
        name: owner if owner in entries and owners.get(owner) == owner else name
        for name, owner in owners.items()
        if name in entries
    }


def tensor_table(path: PathLike) -> dict[str, TensorInfo]:
    """Type and shape of every tensor, from the header alone, which must describe the file exactly."""
    refuse = _refusal(path)
    size, entries, _ = _described(path, refuse)
    table, spans = {}, []
    for name, entry in entries.items():
        info, begin, end = _entry(name, entry, refuse)
        table[name] = info
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise refuse("its tensors overlap, or leave gaps")
        position = end
    if position != size:
        raise refuse(f"the header describes {position:,} bytes of tensors, and the file has {size:,}")
    return table


def _refusal(path: PathLike) -> Callable[[str], ArtifactError]:
    return lambda reason: ArtifactError(
        f"{os.fspath(path)} is damaged or not a safetensors file: {reason}; restore it"
    )


def _described(path: PathLike, refuse: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The size of the data, the entries of the header, its metadata."""
    size, header = _header(path, refuse)
    entries = parse_json(header, os.fspath(path))
    if not isinstance(entries, dict):
        raise refuse("the header is not a table")
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise refuse("the metadata are not strings")
    return size, entries, metadata


def _header(path: PathLike, refuse: Any) -> tuple[int, str]:
    """The size of the data, and the header's text."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise refuse("it is not a plain file")
        with open(path, "rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > found.st_size - 8:
                raise refuse("the header is cut off")
            if length > MAX_HEADER:
                raise refuse(f"a header of {length:,} bytes")
            text = file.read(length).decode("utf-8")
    except OSError as error:
        raise explain(error, path, "read") from error
    except UnicodeDecodeError:
        raise refuse("the header is not text") from None
    return found.st_size - 8 - length, text


def _entry(name: str, entry: Any, refuse: Any) -> tuple[TensorInfo, int, int]:
    shown = f"{name!r:.80}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise refuse(f"{shown} is not described by dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise refuse(f"{shown} has the unknown type {entry['dtype']!r:.40}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or len(shape) > MAX_DIMS:
        raise refuse(f"{shown} has the impossible shape {shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"{shown} has the impossible offsets {offsets!r:.80}")
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != offsets[1] - offsets[0]:
        raise refuse(
            f"{shown} of shape {shape} and type {dtype} does not fit in {offsets[1] - offsets[0]:,} bytes"
        )
    return TensorInfo(dtype, tuple(shape)), offsets[0], offsets[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
