"""Numbers of any type, as their bits: as they are, or as a codebook of the distinct ones and a sequence of codes.

====================  ==============================================================================
byte                  the form: 0 plain, 1 codebook
form 0                the numbers, stored (see below)
form 1: number        how many numbers the codebook has, 1 to 65,536
codebook              the distinct numbers, upwards as unsigned ones of their bits, stored
codes                 a sequence, whose alphabet is the codebook
stored: byte          0 as they are, 1 as float16, 2 as bfloat16, where that keeps every bit of float32
numbers               one after the other, the lowest byte first
====================  ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.codebook import sequence
from lianzhi.codebook.octets import Octets, whole
from lianzhi.errors import ArtifactError

PLAIN, CODEBOOK = 0, 1
SAME, HALF, BRAIN = 0, 1, 2
MOST = 1 << 16  # distinct numbers of a codebook
PART = 1 << 20

Bits = NDArray[Any]  # unsigned, of one, two, four or eight bytes
KINDS: dict[int, Any] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


@dataclass(frozen=True)
class Written:
    """Numbers in bytes; `codebook` is 0 where there is none, `entropy` and `coded` are of the codes, in bits."""

    data: bytes
    codebook: int
    entropy: float
    coded: int


def distinct(values: Bits, most: int = MOST) -> Bits | None:
    """The distinct numbers, upwards; None if there are more than `most`.

    >>> distinct(np.array([7, 3, 7], np.uint32)).tolist()
    [3, 7]
    """
    found = values[:0]
    for start in range(0, len(values), PART):
        found = np.union1d(found, values[start : start + PART])
        if len(found) > most:
            return None
    return found


def write(values: Bits, *, floats: bool) -> list[Written]:
    """The numbers in each form that may be the shortest; `floats` says that 32 bits are a float32."""
    found = distinct(values, min(MOST, len(values) // 2))
    if found is None or not len(found):
        return [_plain(values, floats)]
    coded = sequence.write(codes(values, found), len(found))
    data = b"".join((bytes([CODEBOOK]), whole(len(found)), *_store(found, floats), coded.data))
    written = Written(data, len(found), coded.entropy, 8 * len(coded.data))
    least = 2 if floats else values.dtype.itemsize  # bytes of a plain number
    return [written] if len(data) <= least * len(values) else [_plain(values, floats), written]


def _plain(values: Bits, floats: bool) -> Written:
    return Written(b"".join((bytes([PLAIN]), *_store(values, floats))), 0, 0.0, 0)


def read(source: Octets, count: int, size: int) -> Bits:
    """`count` numbers of `size` bytes each."""
    form = source.octet()
    if form == PLAIN:
        return _stored(source, count, size)
    if form != CODEBOOK:
        raise ArtifactError(f"there is no form {form} of numbers")
    length = source.whole()
    if not 1 <= length <= MOST:
        raise ArtifactError(f"a codebook of {length:,} numbers")
    found = _stored(source, length, size)
    if not bool((found[1:] > found[:-1]).all()):
        raise ArtifactError("the numbers of its codebook do not go upwards")
    return np.take(found, sequence.read(source, count, length), mode="clip")


def codes(values: Bits, found: Bits) -> Bits:
    """The index of each number among the distinct ones.

    >>> codes(np.array([7, 3, 7], np.uint32), np.array([3, 7], np.uint32)).tolist()
    [1, 0, 1]
    """
    kind = np.uint8 if len(found) <= 256 else np.uint16
    result = np.empty(len(values), kind)
    for start in range(0, len(values), PART):
        result[start : start + PART] = np.searchsorted(found, values[start : start + PART])
    return result


def _store(values: Bits, floats: bool) -> tuple[bytes, memoryview]:
    """How they are stored, and the numbers, not copied where they stay as they are."""
    plain = np.ascontiguousarray(values, KINDS[values.dtype.itemsize])
    if floats and values.dtype.itemsize == 4 and len(values):
        lower, upper = plain.view("<u2").reshape(-1, 2).T
        if not lower.any():
            return bytes([BRAIN]), np.ascontiguousarray(upper).data
        half = _to_half(values)
        if half is not None:
            return bytes([HALF]), half.data
    return bytes([SAME]), plain.data


def _to_half(values: Bits) -> NDArray[np.float16] | None:
    """As float16, if that keeps every bit."""
    result = np.empty(len(values), "<f2")
    for start in range(0, len(values), PART):
        part = values[start : start + PART].view(np.float32)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            half = part.astype("<f2")
        if not np.array_equal(half.astype(np.float32).view(np.uint32), part.view(np.uint32)):
            return None
        result[start : start + PART] = half
    return result


def _stored(source: Octets, count: int, size: int) -> Bits:
    how = source.octet()
    if how == SAME:
        return np.frombuffer(source.take(count * size), KINDS[size]).copy()
    if size != 4 or how not in (HALF, BRAIN):
        raise ArtifactError(f"there is no way {how} to store numbers of {size} bytes")
    stored = source.take(2 * count)
    if how == BRAIN:
        return np.frombuffer(stored, "<u2").astype("<u4") << np.uint32(16)
    return np.frombuffer(stored, "<f2").astype("<f4").view("<u4")
