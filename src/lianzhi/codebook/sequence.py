"""A sequence of symbols in bytes: Huffman-coded in interleaved streams, or in equally many bits each.

A code has whole bits, which of few symbols is far from the entropy: such a sequence may be one of pairs, and pairs of pairs.

====================  ==============================================================================
byte                  the form: 0 equal bits, 1 Huffman, 2 one symbol only, 3 pairs
form 0                `width` bits a symbol, as many as the largest needs
form 1: byte          the base-2 logarithm of the number of streams S
byte, byte            the shortest code's length; the bits w of each entry of the following table
table                 for each symbol of the alphabet, in w bits: 0 unused, else its length - shortest + 1
number, byte          the smallest stream's bytes; the bits v of each of the following
sizes                 for each stream, in v bits: its bytes - the smallest's
streams               one after the other
form 2: number        the symbol
form 3                a sequence of the symbols a k + b for two neighbours a and b of an alphabet of k, 2 to 64, whose
                      alphabet is k²; after an odd number the last b is 0
====================  ==============================================================================

How many symbols there are, and how many the alphabet has, the reader has to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lianzhi.codebook import huffman, lockstep
from lianzhi.codebook.lockstep import Symbols
from lianzhi.codebook.octets import Octets, bits, whole
from lianzhi.errors import ArtifactError

EQUAL, HUFFMAN, SINGLE, PAIRS = 0, 1, 2, 3
PAIRED = 64  # symbols of the largest alphabet that is coded in pairs
LEAST = 512  # a shorter sequence is not
WORTH = 0.996  # of the bytes are left at most: larger tables take longer to read
MOST_STREAMS = 13  # as a power of two
BITS_A_STREAM = 3000  # a stream of its own costs some 12 bits: less than half a percent


@dataclass(frozen=True)
class Coded:
    """A sequence's bytes, and how long it had to be at least."""

    data: bytes
    entropy: float  # bits, of single symbols


def write(symbols: Symbols, alphabet: int) -> Coded:
    """The sequence in its shortest form.

    >>> write(np.array([3, 3, 3], np.uint8), 4).data.hex()
    '0203'
    """
    alone = _alone(symbols, alphabet)
    if not 2 <= alphabet <= PAIRED or len(symbols) < LEAST or alone.data[0] == SINGLE:
        return alone
    paired, squared = _paired(symbols, alphabet), alphabet**2
    least = huffman.entropy(_counts(paired, squared)) / 8 + squared / 8  # a bit or more of each length
    if least > WORTH * len(alone.data):
        return alone
    pairs = bytes([PAIRS]) + write(paired, squared).data
    return alone if len(pairs) > WORTH * len(alone.data) else Coded(pairs, alone.entropy)


def _alone(symbols: Symbols, alphabet: int) -> Coded:
    counts = _counts(symbols, alphabet)
    if np.count_nonzero(counts) == 1:
        return Coded(bytes([SINGLE]) + whole(int(symbols[0])), 0.0)
    lengths = huffman.best_lengths(counts)
    total = int((lengths * counts).sum())
    width = _width(alphabet)
    shannon = huffman.entropy(counts)
    equal = -(-len(symbols) * width // 8)
    if total // 8 + 4 >= equal:
        return Coded(bytes([EQUAL]) + bits(symbols, width), shannon)
    log = min(MOST_STREAMS, max(0, (total // BITS_A_STREAM).bit_length() - 1))
    data, sizes = lockstep.encode(symbols, lengths, 1 << log)
    shortest = int(lengths[lengths > 0].min())
    entry = int(lengths.max() - shortest + 1).bit_length()
    spread = int(np.ptp(sizes)).bit_length()
    table = bits(np.where(lengths > 0, lengths.astype(np.int64) - shortest + 1, 0), entry)
    head = bytes([HUFFMAN, log, shortest, entry]) + table + whole(int(sizes.min())) + bytes([spread])
    coded = head + bits(sizes - sizes.min(), spread) + data
    if len(coded) > equal:
        return Coded(bytes([EQUAL]) + bits(symbols, width), shannon)
    return Coded(coded, shannon)


def read(source: Octets, count: int, alphabet: int) -> Symbols:
    """The `count` symbols of an alphabet that `write` wrote.

    >>> read(Octets(write(np.array([1, 0, 3], np.uint8), 4).data), 3, 4).tolist()
    [1, 0, 3]
    """
    form = source.octet()
    kind = np.uint8 if alphabet <= 256 else np.uint16
    if form == SINGLE:
        symbol = source.whole()
        if symbol >= alphabet:
            raise ArtifactError(f"the symbol {symbol:,} is none of {alphabet:,}")
        return np.full(count, symbol, kind)
    if form == PAIRS:
        if not 2 <= alphabet <= PAIRED:
            raise ArtifactError(f"pairs of {alphabet:,} symbols")
        return _apart(read(source, -(-count // 2), alphabet**2), count, alphabet)
    if count > 8 * source.left:
        raise ArtifactError(f"{count:,} symbols cannot be in {source.left:,} bytes")
    if form == EQUAL:
        symbols = source.bits(count, _width(alphabet), kind)
        if int(symbols.max(initial=0)) >= alphabet:
            raise ArtifactError(f"the symbol {int(symbols.max()):,} is none of {alphabet:,}")
        return symbols
    if form != HUFFMAN:
        raise ArtifactError(f"there is no form {form} of a sequence")
    return _read_huffman(source, count, alphabet)


def _paired(symbols: Symbols, alphabet: int) -> Symbols:
    """Two neighbours as one.

    >>> _paired(np.array([1, 2, 1], np.uint8), 3)
    array([5, 3], dtype=uint8)
    """
    kind = np.dtype(np.uint8 if alphabet**2 <= 256 else np.uint16)
    pairs = symbols[::2].astype(kind)
    pairs *= kind.type(alphabet)
    pairs[: len(symbols) // 2] += symbols[1::2].astype(kind)
    return pairs


def _apart(pairs: Symbols, count: int, alphabet: int) -> Symbols:
    """What `_paired` took."""
    table = np.stack(np.divmod(np.arange(alphabet**2), alphabet), 1).astype(np.uint8)
    symbols = table[pairs].reshape(-1)
    if symbols[count:].any():
        raise ArtifactError("a symbol follows after the last")
    return symbols[:count]


def _read_huffman(source: Octets, count: int, alphabet: int) -> Symbols:
    log, shortest, entry = source.octet(), source.octet(), source.octet()
    if log > MOST_STREAMS or not 1 <= shortest <= huffman.LIMIT or not 1 <= entry <= 5:
        raise ArtifactError("the streams or the code lengths are impossible")
    table = source.bits(alphabet, entry)
    lengths = np.where(table > 0, np.minimum(table + shortest - 1, 255), 0).astype(np.uint8)
    huffman.check_lengths(lengths)
    smallest, spread = source.whole(), source.octet()
    if spread > 32 or smallest > source.left:
        raise ArtifactError("the sizes of the streams are impossible")
    sizes = source.bits(1 << log, spread) + smallest
    return lockstep.decode(source.take(int(sizes.sum())), sizes, count, lengths)


def _counts(symbols: Symbols, alphabet: int) -> np.ndarray:
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, len(symbols), 1 << 20):
        counts += np.bincount(symbols[start : start + (1 << 20)], minlength=alphabet)
    return counts


def _width(alphabet: int) -> int:
    return max(1, (alphabet - 1).bit_length())
