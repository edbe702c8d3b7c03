"""Small numbers in bytes: whole ones of any size, and rows of equally many bits; read with every length checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lianzhi.errors import ArtifactError

PART = 1 << 20  # numbers at a time, a multiple of eight


class Octets:
    """Bytes that are read from front to back; what is not there is an `ArtifactError`.

    >>> source = Octets(whole(300) + b"ab")
    >>> source.whole(), source.take(2), source.left
    (300, b'ab', 0)
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise ArtifactError(f"{count:,} bytes are needed, and {self.left:,} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def octet(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def whole(self) -> int:
        """A whole number below 2^63, seven bits a byte, the lowest first; the last byte is below 128."""
        value = 0
        for shift in range(0, 63, 7):
            octet = self.octet()
            value |= (octet & 127) << shift
            if octet < 128:
                if not octet and shift:
                    raise ArtifactError("a number is longer than it needs to be")
                return value
        raise ArtifactError("a number has more than 63 bits")

    def bits(self, count: int, width: int, kind: DTypeLike = np.int64) -> NDArray[Any]:
        """`count` numbers of `width` bits each, from the highest bit of a byte to its lowest; the rest is zero."""
        data = np.frombuffer(self.take(-(-count * width // 8)), np.uint8)
        result = np.zeros(count, kind)
        for start in range(0, count, PART):
            part = result[start : start + PART]
            flags = np.unpackbits(data[start * width // 8 : -(-(start + len(part)) * width // 8)])
            if flags[len(part) * width :].any():
                raise ArtifactError("bits after the last number are not zero")
            for column in flags[: len(part) * width].reshape(len(part), width).T:
                part <<= 1
                part |= column
        return result


def whole(value: int) -> bytes:
    """A whole number as `Octets.whole` reads it.

    >>> whole(5), whole(300)
    (b'\\x05', b'\\xac\\x02')
    """
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def bits(values: NDArray[np.integer], width: int) -> bytes:
    """Numbers of `width` bits each, as `Octets.bits` reads them.

    >>> bits(np.array([1, 2, 3]), 3).hex()
    '2980'
    """
    parts = []
    for start in range(0, len(values), PART):
        part = values[start : start + PART]
        flags = np.empty((len(part), width), np.uint8)
        for column in range(width):
            flags[:, column] = part >> (width - 1 - column) & 1
        parts.append(np.packbits(flags).tobytes())
    return b"".join(parts)
