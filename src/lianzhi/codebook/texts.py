"""JSON in a file in zlib's format, which cannot become much more than the file is.

A kilobyte in zlib's format can stand for a megabyte of ``[],[],…``, and that for 30 megabytes of lists. So text is bounded by
the bytes of the file that it lies in, before it is inflated, and its values before they are made. Headers and graphs have 10
to 40 times their bytes as text and at most 3 values a byte. What is more even than that is filled up with empty blocks of
zlib's format when it is written.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from lianzhi.errors import ArtifactError

TEXT = 64  # most bytes of text for each byte of the file
VALUES = 2  # most values for each byte of the file
FREE = 4096  # of both, whatever the file
EMPTY = b"\x00\x00\x00\xff\xff"  # a block of nothing


def write_text(value: Any) -> bytes:
    """Compact JSON in UTF-8.

    >>> write_text({"name": "权重", "shape": [3, 4]}).decode()
    '{"name":"权重","shape":[3,4]}'
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def values_in(text: bytes) -> int:
    """At most so many values does a text stand for: its brackets that open, and its commas.

    >>> values_in(b'{"a":[1,2]}')
    3
    """
    return sum(map(text.count, (b"[", b"{", b",")))


def least_bytes(text: bytes) -> int:
    """The bytes that a file must have for this text to be read from it.

    >>> least_bytes(b"[1]"), least_bytes(b"[]," * 4096)
    (0, 2048)
    """
    return max(0, -(-(values_in(text) - FREE) // VALUES), -(-(len(text) - FREE) // TEXT))


def deflate(text: bytes, beside: int) -> bytes:
    """The text in zlib's format, for a file that has so many bytes beside it.

    >>> text = b"[]," * 4096
    >>> len(deflate(text, 2048)) < 50, 2048 <= len(deflate(text, 0)) < 2100, zlib.decompress(deflate(text, 0)) == text
    (True, True, True)
    """
    data = zlib.compress(text, 9)
    missing = least_bytes(text) - beside - len(data)
    if missing <= 0:
        return data
    stream = zlib.compressobj(9)
    begun = stream.compress(text) + stream.flush(zlib.Z_FULL_FLUSH)
    return begun + EMPTY * -(-missing // len(EMPTY)) + stream.flush()


def inflate(data: bytes, length: int, size: int) -> str:
    """The text of so many bytes that `deflate` wrote, in a file of `size` bytes.

    >>> inflate(deflate(b"[1,2]", 0), 5, 100)
    '[1,2]'
    >>> inflate(zlib.compress(b"[]," * 3000), 9000, 100)
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: 6,000 values are more than a file of 100 bytes can hold

    Raises `ArtifactError` for another length, more text or more values than such a file has, and what is no UTF-8.
    """
    if length > TEXT * size + FREE:
        raise ArtifactError(f"{length:,} bytes of text are more than a file of {size:,} bytes can hold")
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, length + 1)
        if len(text) != length or not stream.eof or stream.unused_data:
            raise ArtifactError(f"it is not the {length:,} bytes of text that it should be")
        if least_bytes(text) > size:
            raise ArtifactError(f"{values_in(text):,} values are more than a file of {size:,} bytes can hold")
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise ArtifactError(str(error)) from None
