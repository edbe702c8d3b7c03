"""Sorted tables and checkpoints of TensorFlow written by hand, so that tests can write wrong ones with right checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lianzhi.models.checkpoints.sstable import MAGIC


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, as the RFC says."""
    register = 0xFFFFFFFF
    for value in data:
        register ^= value
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    checksum = slow_crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def number(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def counted(tag: int, value: bytes) -> bytes:
    return number(tag << 3 | 2) + number(len(value)) + value


def plain(tag: int, value: int) -> bytes:
    return number(tag << 3) + number(value)


def block(pairs: list[tuple[bytes, bytes]], *, share: bool = True) -> bytes:
    content, before = b"", b""
    for key, value in pairs:
        shared = 0
        while share and shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        content += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    return content + bytes(4) + (1).to_bytes(4, "little")


def stored(content: bytes, kind: int = 0) -> bytes:
    """A block with its trailer."""
    if kind == 1:
        content = pa.compress(content, codec="snappy", asbytes=True)
    body = content + bytes([kind])
    return body + masked(body).to_bytes(4, "little")


def table(blocks: list[bytes], handles: list[tuple[int, int]] | None = None) -> bytes:
    """A file of stored blocks; `handles` are where the index says that they lie."""
    data, found = b"", []
    for item in blocks:
        found.append((len(data), len(item) - 5))
        data += item
    handles = found if handles is None else handles
    keys = [bytes([position]) for position in range(1, len(handles) + 1)]
    index = stored(block([(key, number(a) + number(b)) for key, (a, b) in zip(keys, handles, strict=True)]))
    meta = stored(block([]))
    where = number(len(data)) + number(len(meta) - 5)
    where += number(len(data) + len(meta)) + number(len(index) - 5)
    return data + meta + index + where.ljust(40, b"\0") + MAGIC


def entry(array: np.ndarray, place: int, **change: Any) -> bytes:
    """A BundleEntryProto of a float32 array; `change` replaces what it says."""
    data = array.tobytes()
    said = {"dtype": 1, "shape": array.shape, "shard": 0, "offset": place, "size": len(data)} | change
    shape = b"".join(counted(2, plain(1, size)) for size in said["shape"])
    found = plain(1, said["dtype"]) + counted(2, shape) + plain(3, said["shard"])
    found += plain(4, said["offset"]) + plain(5, said["size"])
    return found + number(6 << 3 | 5) + said.get("checksum", masked(data)).to_bytes(4, "little")


def header(shards: int = 1, endianness: int = 0) -> bytes:
    return plain(1, shards) + plain(2, endianness) + counted(3, plain(1, 1))


def write(
    folder: Path, arrays: dict[str, np.ndarray], changes: dict[str, dict[str, Any]] | None = None
) -> Path:
    """A checkpoint of float32 arrays in one data file; `changes` are of the entries by name."""
    data, pairs = b"", [(b"", header())]
    for name in sorted(arrays):
        pairs.append((name.encode(), entry(arrays[name], len(data), **(changes or {}).get(name, {}))))
        data += arrays[name].tobytes()
    (folder / "m.index").write_bytes(table([stored(block(pairs))]))
    (folder / "m.data-00000-of-00001").write_bytes(data)
    return folder / "m"
