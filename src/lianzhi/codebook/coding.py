"""One tensor in bytes, in the shortest of five codings, and back, bit for bit.

``constant``  one number, that all elements have
``raw``       all numbers, plain
``codes``     a codebook, and a code for every element
``gaps``      the numbers that are not zero, and before each how many zeros: a relative index of 5 or 8 bits; its
              largest value says that so many zeros follow, and no number
``mask``      the numbers that are not zero, and a bit for every element, eight of them a symbol

Zero means that all bits are zero; -0.0 is a number like others.

====================  ==============================================================================
constant              the number
raw, codes            numbers (`values`)
gaps: number          how many numbers are not zero
byte, number          the bits of an index; how many indices there are
indices               a sequence, whose alphabet is 2^bits
numbers               `values`
mask: number          how many numbers are not zero
mask                  a sequence of bytes, the first element in the highest bit
numbers               `values`
====================  ==============================================================================

Zeros fill the section up to a 4,096th of the tensor's bytes, so that no short file asks for a lot of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lianzhi.codebook import huffman, sequence, values
from lianzhi.codebook.octets import Octets, whole
from lianzhi.codebook.values import KINDS, Bits, Written
from lianzhi.errors import ArtifactError

CODINGS = ("constant", "raw", "codes", "gaps", "mask")
WIDTHS = (5, 8)
EXPANSION = 4096
SPARSE = 0.25  # with fewer, a mask or gaps take fewer bits than zeros among dense codes
DENSE = 0.75  # with more numbers that are not zero, leaving the zeros out pays of plain numbers alone


@dataclass(frozen=True)
class Section:
    """A tensor's bytes, and what they are made of."""

    coding: str
    data: bytes = field(repr=False)
    kept: int  # elements that are not zero
    codebook: int = 0  # distinct numbers, without the zeros that are left out
    index_bits: int = 0
    indices: int = 0
    entropy: float = 0.0  # bits: the least that all codes can have
    coded: int = 0  # bits that they have
    index_entropy: float = 0.0  # the same of all indices
    index_coded: int = 0


def encode(bits: Bits, *, floats: bool) -> Section:
    """The shortest coding of a flat tensor's bits.

    >>> encode(np.array([3, 4, 4, 3, 4, 3] * 8, np.uint32), floats=False).coding
    'codes'
    """
    size = bits.dtype.itemsize
    least = -(-bits.nbytes // EXPANSION)
    if not len(bits):
        return Section("raw", values.write(bits, floats=floats)[0].data, 0)
    if bool((bits == bits[0]).all()):
        data = bits[:1].astype(KINDS[size]).tobytes()
        kept = len(bits) if bits[0] else 0
        return Section("constant", data + bytes(max(0, least - len(data))), kept)
    kept = int(np.count_nonzero(bits))
    found = []
    if kept > SPARSE * len(bits):
        found += [_dense(written, kept) for written in values.write(bits, floats=floats)]
    if kept <= DENSE * len(bits) or _pays(bits, kept, found):
        filled = np.flatnonzero(bits)
        numbers = values.write(bits[filled], floats=floats)
        shortest = min(numbers, key=lambda written: len(written.data))
        found += [*_gaps(filled, shortest), _mask(bits, shortest, kept)]
    best = min(found, key=lambda section: len(section.data))
    if len(best.data) < least:  # hardly anything in it: fill it up
        return _padded(best, least)
    return best


def decode(coding: str, data: bytes, count: int, size: int) -> Bits:
    """The bits of the tensor of `count` elements of `size` bytes. Raises `ArtifactError` if the bytes are not its own.

    >>> decode("constant", b"\\x07", 3, 1).tolist()
    [7, 7, 7]
    """
    if count * size > EXPANSION * len(data):
        raise ArtifactError(f"{count * size:,} bytes cannot come out of {len(data):,}")
    source = Octets(data)
    if coding == "constant":
        found = np.full(count, np.frombuffer(source.take(size), KINDS[size])[0], KINDS[size])
    elif coding in ("raw", "codes"):
        found = values.read(source, count, size)
    elif coding == "gaps":
        found = _read_gaps(source, count, size)
    elif coding == "mask":
        found = _read_mask(source, count, size)
    else:
        raise ArtifactError(f"there is no coding {coding!r:.40}")
    if source.left and (len(data) > -(-count * size // EXPANSION) or any(source.take(source.left))):
        raise ArtifactError(f"{source.left:,} bytes follow after its last")
    return found


def _pays(bits: Bits, kept: int, found: list[Section]) -> bool:
    """Whether plain numbers become a thousandth shorter without their zeros, if a mask takes no more than it has to."""
    if kept == len(bits) or min(found, key=lambda section: len(section.data)).coding != "raw":
        return False
    least = huffman.entropy(np.array([kept, len(bits) - kept]))
    return 8 * bits.itemsize * (len(bits) - kept) - least > 8 * bits.nbytes / 1000


def _padded(section: Section, least: int) -> Section:
    return Section(**{**vars(section), "data": section.data + bytes(least - len(section.data))})


def _dense(written: Written, kept: int) -> Section:
    coding = "codes" if written.codebook else "raw"
    return Section(coding, written.data, kept, written.codebook, entropy=written.entropy, coded=written.coded)


def _gaps(filled: NDArray[np.int64], numbers: Written) -> list[Section]:
    zeros = np.diff(filled, prepend=-1) - 1
    found = []
    for width in WIDTHS:
        most = (1 << width) - 1
        skips = zeros // most
        total = len(zeros) + int(skips.sum())
        indices = np.full(total, most, np.uint8)
        indices[np.cumsum(skips + 1) - 1] = zeros % most
        coded = sequence.write(indices, most + 1)
        if total > 8 * (
            len(coded.data) + len(numbers.data)
        ):  # too regular to bound the memory that reading takes
            continue
        head = whole(len(filled)) + bytes([width]) + whole(total)
        found.append(
            Section(
                "gaps",
                head + coded.data + numbers.data,
                len(filled),
                numbers.codebook,
                width,
                total,
                numbers.entropy,
                numbers.coded,
                coded.entropy,
                8 * len(coded.data),
            )
        )
    return found


def _read_gaps(source: Octets, count: int, size: int) -> Bits:
    kept, width = source.whole(), source.octet()
    total = source.whole()
    if width not in WIDTHS or not kept <= total <= count or total > 8 * source.left:
        raise ArtifactError(f"{total:,} indices of {width} bits for {kept:,} of {count:,} elements")
    most = (1 << width) - 1
    indices = sequence.read(source, total, most + 1)
    numbers = values.read(source, kept, size)
    at = np.cumsum(indices, dtype=np.int64)
    if total == kept:
        at += np.arange(total)
    else:
        ends = indices != most
        at = at[ends]
        if len(at) == kept:
            at += np.arange(kept)
    if len(at) != kept or (kept and int(at[-1]) >= count):
        raise ArtifactError(f"its indices are not those of {kept:,} of {count:,} elements")
    found = np.zeros(count, KINDS[size])
    found[at] = numbers
    return found


def _mask(bits: Bits, numbers: Written, kept: int) -> Section:
    coded = sequence.write(np.packbits(bits != 0), 256)
    return Section(
        "mask",
        whole(kept) + coded.data + numbers.data,
        kept,
        numbers.codebook,
        1,
        len(bits),
        numbers.entropy,
        numbers.coded,
        coded.entropy,
        8 * len(coded.data),
    )


def _read_mask(source: Octets, count: int, size: int) -> Bits:
    kept = source.whole()
    if kept > count:
        raise ArtifactError(f"{kept:,} of {count:,} elements are not zero")
    octets = sequence.read(source, -(-count // 8), 256)
    filled = np.unpackbits(octets).view(bool)
    if filled[count:].any() or int(np.count_nonzero(filled)) != kept:
        raise ArtifactError(f"its mask is not that of {kept:,} of {count:,} elements")
    found = np.zeros(count, KINDS[size])
    found[filled[:count]] = values.read(source, kept, size)
    return found
