"""The file ``.lzc``: a header that describes every tensor, then a section a tensor, each with its own checksum.

======  ======================================================================================
bytes   what
======  ======================================================================================
8       89 4C 5A 43 0D 0A 1A 0A: "LZC" between bytes that a transfer as text would change
4       the version, 1 (whole numbers here are unsigned, the lowest byte first)
4       the header's bytes in the file
4       the header's bytes as text
4       CRC-32 of the twelve bytes before and of the header as it is in the file
…       the header: JSON in UTF-8, in zlib's format
…       sections in the order of the header, without gaps; the file ends with the last one
======  ======================================================================================

The header is ``{"tensors": [...], "architecture": n}``. A tensor is ``{"name", "dtype", "shape", "coding", "bytes"}``, or
``{"name", "same"}`` if it is a tensor further up under another name. The architecture's section is the last; n is 0 if
there is none. A section is four bytes, and then as many as its entry says: those four are the CRC-32 of the section's
index (four bytes), of its entry as compact JSON, and of the bytes, so that sections cannot change places.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from torch import Tensor

from lianzhi import files
from lianzhi.codebook import coding
from lianzhi.codebook.tensors import DTYPES, fits, from_bits
from lianzhi.codebook.texts import deflate, inflate, write_text
from lianzhi.errors import ArtifactError
from lianzhi.files import TensorInfo

PathLike = str | os.PathLike[str]
MAGIC = b"\x89LZC\r\n\x1a\n"
VERSION = 1
START = struct.Struct("<8sIII")
CHECK = struct.Struct("<I")
MAX_HEADER = 1 << 24
MAX_ARCHITECTURE = 1 << 26
ARCHITECTURE = "architecture"
_ENTRY = {"name", "dtype", "shape", "coding", "bytes"}
_TIE = {"name", "same"}


@dataclass(frozen=True)
class Entry:
    """A tensor in the header: where its section is, or whose tensor it is."""

    described: dict[str, Any]
    index: int
    at: int

    @property
    def same(self) -> str | None:
        """The name of the tensor that this one is."""
        return self.described.get("same")

    @property
    def info(self) -> TensorInfo:
        """Type and shape."""
        return TensorInfo(DTYPES[self.described["dtype"]], tuple(self.described["shape"]))


def is_packed(path: PathLike) -> bool:
    """Whether a file begins like a ``.lzc`` file. Raises `ArtifactError` for one that cannot be read.

    >>> is_packed(__file__)
    False
    """
    with _opened(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def _opened(path: PathLike) -> IO[bytes]:
    try:
        return open(path, "rb", opener=files.open_regular)
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError):
            raise ArtifactError(f"{path!r} is not a path: {error}") from None
        raise files.explain(error, path, "read") from error


def write(path: PathLike, tensors: Sequence[tuple[dict[str, Any], bytes]], architecture: Any = None) -> int:
    """Write a file whole or not at all; return its bytes. Each tensor is its entry without "bytes", and its section."""
    entries: list[dict[str, Any]] = []
    # checksums and bytes, which are not put together: that would be a copy
    sections: list[tuple[bytes, bytes]] = []
    for described, data in tensors:
        entry = described if "same" in described else {**described, "bytes": len(data)}
        entries.append(entry)
        if "same" not in entry:
            sections.append(_section(len(entries) - 1, entry, data))
    text = b"" if architecture is None else _architecture(architecture)
    if text:
        sections.append(_section(len(entries), len(text), text))
    header = write_text({"tensors": entries, ARCHITECTURE: len(text)})
    if len(header) > MAX_HEADER:
        raise ArtifactError(
            f"{os.fspath(path)}: its header would have {len(header):,} bytes, at most {MAX_HEADER:,}"
        )
    parts = [part for section in sections for part in section]
    deflated = deflate(header, START.size + CHECK.size + sum(map(len, parts)))
    start = START.pack(MAGIC, VERSION, len(deflated), len(header))
    check = CHECK.pack(zlib.crc32(deflated, zlib.crc32(start[8:])))
    with files.writing(path) as temporary, temporary.open("wb") as file:
        for part in (start, check, deflated, *parts):
            file.write(part)
        return file.tell()


def _section(index: int, entry: Any, data: bytes) -> tuple[bytes, bytes]:
    return CHECK.pack(_checksum(index, entry, data)), data


def _checksum(index: int, entry: Any, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(write_text(entry), zlib.crc32(CHECK.pack(index))))


def _architecture(architecture: Any) -> bytes:
    text = write_text(architecture)
    return CHECK.pack(len(text)) + deflate(text, 0)


class Reader:
    """An open file, whose tensors are read one at a time; its header is checked when it is opened.

    Raises `ArtifactError` that names the section (or the header) if anything is not as it was written, before memory
    for it is allocated: a tensor's section gives at most 4,096 times its own bytes; for the header and the architecture see
    `lianzhi.codebook.texts`.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.entries: dict[str, Entry] = {}
        self._file = _opened(path)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        entry = self.entries[name]
        if entry.same is not None:
            return self.read(entry.same)
        described, info = entry.described, entry.info
        where = f"the section of {name!r:.80}"
        data = self._take(where, entry.at, described["bytes"], entry.index, described)
        try:
            bits = coding.decode(described["coding"], data, math.prod(info.shape), info.dtype.itemsize)
            return from_bits(bits, info.dtype, info.shape)
        except ArtifactError as error:
            raise self._refuse(where, str(error)) from None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors in their order; only tensors of several names are kept until the last of them."""
        left: dict[str, int] = {}
        for entry in self.entries.values():
            if entry.same is not None:
                left[entry.same] = left.get(entry.same, 0) + 1
        kept: dict[str, Tensor] = {}
        for name, entry in self.entries.items():
            owner = entry.same or name
            tensor = kept[owner] if entry.same is not None else self.read(name)
            if entry.same is not None:
                left[owner] -= 1
            if left.get(owner):
                kept[owner] = tensor
            else:
                kept.pop(owner, None)
            yield name, tensor

    def architecture(self) -> Any:
        """What the architecture's section holds; None if there is none."""
        if not self._architecture:
            return None
        where = "the section of the architecture"
        data = self._take(where, self._end, self._architecture, len(self.entries), self._architecture)
        length = int.from_bytes(data[:4], "little")
        if length > MAX_ARCHITECTURE:
            raise self._refuse(where, f"{length:,} bytes of text")
        return files.parse_json(self._inflate(where, data[4:], length), f"{self.path}, {where},")

    def _open(self) -> None:
        start = self._at("the header", 0, min(START.size + CHECK.size, self._size))
        if start[:8] != MAGIC[: len(start)]:
            raise ArtifactError(
                f"{self.path} is not a .lzc file: it does not begin like one; give a file that pack wrote"
            )
        if len(start) < START.size + CHECK.size:
            raise self._refuse("the header", "it is cut off")
        _, version, stored, length = START.unpack(start[: START.size])
        if stored > self._size - len(start) or stored > MAX_HEADER + 1024 or length > MAX_HEADER:
            raise self._refuse("the header", f"{stored:,} bytes, {length:,} as text, do not fit")
        deflated = self._at("the header", len(start), stored)
        if CHECK.unpack(start[START.size :])[0] != zlib.crc32(deflated, zlib.crc32(start[8 : START.size])):
            raise self._refuse("the header", "its checksum is another")
        if version != VERSION:
            raise ArtifactError(
                f"{self.path} has version {version} of the format, and this version of Lianzhi reads {VERSION}; "
                f"update it: pip install --upgrade lianzhi"
            )
        text = self._inflate("the header", deflated, length)
        self._list(files.parse_json(text, f"{self.path}, the header,"), len(start) + stored)

    def _list(self, header: Any, at: int) -> None:
        if not isinstance(header, dict) or header.keys() != {"tensors", ARCHITECTURE}:
            raise self._refuse("the header", "it has not the keys 'tensors' and 'architecture'")
        entries, self._architecture = header["tensors"], header[ARCHITECTURE]
        if not isinstance(entries, list) or not _whole(self._architecture):
            raise self._refuse("the header", "its tensors are not a list, or its architecture no length")
        for index, described in enumerate(entries):
            self._check(index, described)
            self.entries[described["name"]] = Entry(described, index, at)
            if "same" not in described:
                at += CHECK.size + described["bytes"]
        self._end = at
        end = at + (CHECK.size + self._architecture if self._architecture else 0)
        if end != self._size:
            raise self._refuse("the header", f"it describes {end:,} bytes, and the file has {self._size:,}")

    def _check(self, index: int, described: Any) -> None:
        where = f"entry {index} of the header"
        if not isinstance(described, dict) or described.keys() not in (_ENTRY, _TIE):
            raise self._refuse(where, f"its keys are not {', '.join(sorted(_ENTRY))}")
        name = described["name"]
        where = f"{where} ({name!r:.80})"
        if not isinstance(name, str) or name in self.entries:
            raise self._refuse(where, "its name is no text, or stands twice")
        if "same" in described:
            owner = described["same"]
            if (
                not isinstance(owner, str)
                or owner not in self.entries
                or self.entries[owner].same is not None
            ):
                raise self._refuse(where, f"there is no tensor {owner!r:.80} before it")
            return
        shape = described["shape"]
        if not isinstance(described["dtype"], str) or described["dtype"] not in DTYPES:
            raise self._refuse(where, f"the type {described['dtype']!r:.40} is not known")
        if not isinstance(shape, list) or not all(_whole(size) for size in shape) or not fits(shape):
            raise self._refuse(where, f"the shape {shape!r:.80} is impossible")
        if not isinstance(described["coding"], str) or described["coding"] not in coding.CODINGS:
            raise self._refuse(where, f"the coding {described['coding']!r:.40} is not known")
        length = described["bytes"]
        most = coding.EXPANSION * length if _whole(length) and length <= self._size else -1
        if math.prod(shape) * DTYPES[described["dtype"]].itemsize > most:
            raise self._refuse(where, f"{shape!r:.80} of {described['dtype']} is not in {length!r:.30} bytes")

    def _take(self, where: str, at: int, count: int, index: int, entry: Any) -> bytes:
        data = self._at(where, at, CHECK.size + count)
        if CHECK.unpack(data[: CHECK.size])[0] != _checksum(index, entry, data[CHECK.size :]):
            raise self._refuse(where, "its checksum is another")
        return data[CHECK.size :]

    def _at(self, where: str, at: int, count: int) -> bytes:
        try:
            self._file.seek(at)
            data = self._file.read(count)
        except OSError as error:
            raise files.explain(error, self.path, "read") from error
        if len(data) != count:
            raise self._refuse(where, "it is cut off")
        return data

    def _inflate(self, where: str, data: bytes, length: int) -> str:
        try:
            return inflate(data, length, self._size)
        except ArtifactError as error:
            raise self._refuse(where, str(error)) from None

    def _refuse(self, where: str, reason: str) -> ArtifactError:
        return ArtifactError(f"{self.path} is damaged: {where}: {reason}; restore it")


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0
