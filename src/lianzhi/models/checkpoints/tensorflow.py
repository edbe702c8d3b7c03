"""TensorFlow checkpoints, read without TensorFlow: the format of `tf.train.Saver` and `tf.train.Checkpoint` since 0.12 (V2).

``PREFIX.index`` is a sorted table of a BundleHeaderProto (key "") and, by variable, of a BundleEntryProto, which says type,
shape, and where in which of ``PREFIX.data-00000-of-00002`` the raw values lie, with their checksum
(tensorflow/core/protobuf/tensor_bundle.proto). All lengths are compared with the files before a tensor is allocated, and no two
tensors may share bytes. Text and objects, such as the graph of objects of TensorFlow 2, are left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lianzhi import files
from lianzhi.errors import ArtifactError
from lianzhi.files.disk import PathLike
from lianzhi.models.checkpoints import sstable
from lianzhi.models.checkpoints.crc32c import crc32c, unmasked
from lianzhi.models.checkpoints.tensorflow_places import find_stem, refuse_first_format
from lianzhi.models.checkpoints.wire import fields, signed

DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    8: torch.complex64,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
    24: torch.float8_e5m2,
    25: torch.float8_e4m3fn,
}
OTHERS = {7: "text", 18: "complex128", 20: "a resource", 21: "an object"}
MOST_DIMS = 254  # TensorFlow's own bound
MOST_SHARDS = 1 << 16
_LITTLE = 0
_PART = b"\0"


@dataclass(frozen=True)
class Entry:
    """Where a variable lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    in_parts: bool


def read_tensorflow(prefix: PathLike) -> dict[str, Tensor]:
    """All variables of a checkpoint that hold numbers, by name, on the CPU.

    ```python
    read_tensorflow("uncased_L-12_H-768_A-12/bert_model.ckpt")["bert/pooler/dense/bias"]
    ```

    `prefix` is what the files have in common, one of the files, or the folder they lie in. Each tensor's checksum is compared.

    Raises:
        ArtifactError: there is no checkpoint, it is damaged or hostile, or of a kind that is not read; nothing is returned.
    """
    return read_variables(prefix)[0]


def read_variables(prefix: PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same, and what was left out: its name, and what it holds."""
    stem = find_stem(prefix)
    if stem is None:
        refuse_first_format(files.expanded(prefix))
        raise ArtifactError(
            f"{os.fspath(prefix)}: there is no TensorFlow checkpoint; give what the names of its .index and .data files have "
            f"in common"
        )
    shards, entries = read_index(stem)
    wanted = {name: entry for name, entry in entries.items() if entry.dtype in DTYPES}
    left_out = {
        name: OTHERS.get(entry.dtype, f"values of TensorFlow's type {entry.dtype}")
        for name, entry in entries.items()
        if name not in wanted
    }
    _check(stem, shards, wanted)
    tensors = {}
    for name, entry in wanted.items():
        tensors[name] = _read(_shard(stem, entry.shard, shards), name, entry)
    return tensors, left_out


def read_index(stem: Path) -> tuple[int, dict[str, Entry]]:
    """How many data files there are, and the entry of each variable."""
    file = Path(f"{stem}.index")
    data = files.read_bytes(file, sstable.MOST_BYTES)
    shards: int | None = None
    entries: dict[str, Entry] = {}
    try:
        for key, value in sstable.entries(data):
            if key == b"":
                shards = _header(value)
            elif shards is None:
                raise ValueError("it begins with no header")
            elif not key.startswith(_PART):  # the variable's own entry says that it is in parts
                name = key.decode("utf-8")
                entries[name] = _entry(name, value, shards)
    except ValueError as error:
        raise _damaged(file, str(error)) from None
    if shards is None:
        raise _damaged(file, "it has no header")
    return shards, entries


def _header(value: bytes) -> int:
    """The number of data files."""
    numbers = {number: found for number, found in fields(value) if isinstance(found, int)}
    if numbers.get(2, _LITTLE) != _LITTLE:
        raise ValueError("it is of a big-endian machine; save it again on another one")
    shards = numbers.get(1, 0)
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"it speaks of {shards:,} data files")
    return shards


def _entry(name: str, value: bytes, shards: int) -> Entry:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    in_parts = False
    for number, item in fields(value):
        if isinstance(item, int):
            numbers[number] = signed(item)
        elif number == 2:
            shape = _shape(name, item)
        elif number == 7:
            in_parts = True
    dtype, shard, offset, size, checksum = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
    if not 0 <= shard < shards or offset < 0 or size < 0:
        raise ValueError(f"{name!r:.80} lies in file {shard} of {shards}, at {offset}, {size} bytes")
    return Entry(dtype, shape, shard, offset, size, checksum, in_parts)


def _shape(name: str, value: bytes) -> tuple[int, ...]:
    sizes = []
    for number, item in fields(value):
        if number == 3 and item:
            raise ValueError(f"{name!r:.80} has no known shape")
        if number == 2 and isinstance(item, bytes):
            size = signed(next((int(part) for key, part in fields(item) if key == 1), 0))  # type: ignore[arg-type]
            sizes.append(size)
    if len(sizes) > MOST_DIMS or min(sizes, default=0) < 0:
        raise ValueError(f"{name!r:.80} has the impossible shape {sizes!r:.80}")
    return tuple(sizes)


def _check(stem: Path, shards: int, entries: Mapping[str, Entry]) -> None:
    """Compare every length with the files there are, before anything is allocated."""
    index = Path(f"{stem}.index")
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for name, entry in entries.items():
        if entry.in_parts:
            raise ArtifactError(
                f"{index}: '{name!s:.80}' is stored in parts, by a run of several servers; load it in TensorFlow and "
                f"save it whole"
            )
        width = DTYPES[entry.dtype].itemsize
        if math.prod(entry.shape) * width != entry.size:
            raise _damaged(
                index,
                f"'{name!s:.80}' of shape {list(entry.shape)!r:.80} does not fit in {entry.size:,} bytes",
            )
        spans.setdefault(entry.shard, []).append((entry.offset, entry.offset + entry.size, name))
    for shard, taken in spans.items():
        file = _shard(stem, shard, shards)
        length, read = _length(file), 0
        for start, end, name in sorted(taken):
            if end > length:
                raise _damaged(
                    file,
                    f"'{name!s:.80}' would end at byte {end:,}, and the file has {length:,}: it is cut off",
                )
            if start < read:
                raise _damaged(index, f"'{name!s:.80}' lies on another variable")
            read = max(read, end)


def _shard(stem: Path, shard: int, shards: int) -> Path:
    return Path(f"{stem}.data-{shard:05d}-of-{shards:05d}")


def _length(file: Path) -> int:
    try:
        with open(file, "rb", opener=files.open_regular) as stream:
            return os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        raise ArtifactError(
            f"{file}: this file of the checkpoint is missing; put it beside the .index file"
        ) from None
    except OSError as error:
        raise files.explain(error, file, "read") from error


def _read(file: Path, name: str, entry: Entry) -> Tensor:
    try:
        with open(file, "rb", opener=files.open_regular) as stream:
            stream.seek(entry.offset)
            data = np.fromfile(stream, np.uint8, entry.size)
    except OSError as error:
        raise files.explain(error, file, "read") from error
    if len(data) != entry.size or crc32c(data) != unmasked(entry.checksum):
        raise _damaged(file, f"the checksum of '{name!s:.80}' differs")
    dtype = DTYPES[entry.dtype]
    if dtype == torch.bool and data.size and data.max() > 1:
        raise _damaged(file, f"'{name!s:.80}' holds bytes that are neither true nor false")
    if not data.size:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(entry.shape)


def _damaged(file: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{file} is damaged or not of a TensorFlow checkpoint: {reason}; restore it")
