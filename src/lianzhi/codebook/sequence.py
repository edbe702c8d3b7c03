"""A sequence of symbols in bytes: Huffman-coded in interleaved streams, or in equally many bits each.

A code has whole bits, which of few symbols is far from the entropy: such a sequence may be one of pairs, pairs of pairs, or
of longer runs.

====================  ==============================================================================
byte                  the form: 0 equal bits, 1 Huffman, 2 one symbol only, 3 pairs, 4 runs
form 0                `width` bits a symbol, as many as the largest needs
form 1: byte          the base-2 logarithm of the number of streams S
byte, byte            the shortest code's length; the bits w of each entry of the following table
table                 for each symbol of the alphabet, in w bits: 0 unused, else its length - shortest + 1; with w = 0 these
                      are a sequence themselves, of the forms 0 to 2, whose alphabet is 17
number, byte          the smallest stream's bytes; the bits v of each of the following
sizes                 for each stream, in v bits: its bytes - the smallest's
streams               one after the other
form 2: number        the symbol
form 3                a sequence of the symbols a k + b for two neighbours a and b of an alphabet of k, 2 to 64, whose
                      alphabet is k²; after an odd number the last b is 0
form 4: byte          n, from 3 to 8
                      a sequence of runs of n neighbours as one number to the base k, the first as its highest digit,
                      whose alphabet is k^n, at most 10,000; the last run is filled up with 0
====================  ==============================================================================

How many symbols there are, and how many the alphabet has, the reader has to know.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from lianzhi.codebook import huffman, lockstep
from lianzhi.codebook.lockstep import Symbols
from lianzhi.codebook.octets import Octets, bits, whole
from lianzhi.errors import ArtifactError

EQUAL, HUFFMAN, SINGLE, PAIRS, RUNS = 0, 1, 2, 3, 4
PAIRED = 64  # symbols of the largest alphabet that is coded in pairs
LARGEST = 10_000  # symbols of an alphabet of runs
LONGEST = 8  # run
LEAST = 512  # a shorter sequence is not
WORTH = 0.996  # of the bytes are left at most: larger tables take longer to read
MOST_STREAMS = 13  # as a power of two
ENTRIES = huffman.LIMIT + 1  # that a table can have: no code, or one of as many lengths
BITS_A_STREAM = 3000  # a stream of its own costs some 12 bits: less than half a percent


@dataclass(frozen=True)
class Coded:
    """A sequence's bytes, and how long it had to be at least in codes of single symbols."""

    data: bytes
    entropy: float  # bits; runs of neighbours that depend on each other may take fewer


def write(symbols: Symbols, alphabet: int) -> Coded:
    """The sequence in its shortest form.

    >>> write(np.array([3, 3, 3], np.uint8), 4).data.hex()
    '0203'
    """
    alone = best = _alone(symbols, alphabet)
    if alphabet < 2 or len(symbols) < LEAST or alone.data[0] == SINGLE:
        return alone
    if alphabet <= PAIRED:
        best = _in_runs(symbols, alphabet, 2, bytes([PAIRS]), best)
    if (length := _length(alphabet)) > 2:
        best = _in_runs(symbols, alphabet, length, bytes([RUNS, length]), best)
    return Coded(best.data, alone.entropy)


def _in_runs(symbols: Symbols, alphabet: int, length: int, head: bytes, best: Coded) -> Coded:
    """The sequence in runs, where it is worth it; else the best one so far."""
    runs, larger = _joined(symbols, alphabet, length), alphabet**length
    counts = _counts(runs, larger)
    least = huffman.entropy(counts) / 8 + np.count_nonzero(counts) / 8
    if least > WORTH * len(best.data):
        return best
    coded = head + (write if length == 2 else _alone)(runs, larger).data
    return best if len(coded) > WORTH * len(best.data) else Coded(coded, best.entropy)


def _length(alphabet: int) -> int:
    """Of the longest runs.

    >>> _length(3), _length(20), _length(64)
    (8, 3, 2)
    """
    found = 1
    while found < LONGEST and alphabet ** (found + 1) <= LARGEST:
        found += 1
    return found


def _alone(symbols: Symbols, alphabet: int, *, nested: bool = False) -> Coded:
    """The sequence without pairs; one that is nested has no table that is a sequence again."""
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
    spread = int(np.ptp(sizes)).bit_length()
    head = bytes([HUFFMAN, log]) + _table(lengths, nested=nested) + whole(int(sizes.min())) + bytes([spread])
    coded = head + bits(sizes - sizes.min(), spread) + data
    if len(coded) > equal:
        return Coded(bytes([EQUAL]) + bits(symbols, width), shannon)
    return Coded(coded, shannon)


def _table(lengths: huffman.Lengths, *, nested: bool) -> bytes:
    """The shortest code's length and those of all symbols."""
    shortest = int(lengths[lengths > 0].min())
    entries = np.where(lengths > 0, lengths.astype(np.int64) - shortest + 1, 0)
    width = int(entries.max()).bit_length()
    plain = bytes([shortest, width]) + bits(entries, width)
    if nested:
        return plain
    coded = bytes([shortest, 0]) + _alone(entries.astype(np.uint8), ENTRIES, nested=True).data
    return min(plain, coded, key=len)


def read(source: Octets, count: int, alphabet: int, *, nested: bool = False, runs: bool = False) -> Symbols:
    """The `count` symbols of an alphabet that `write` wrote.

    >>> read(Octets(write(np.array([1, 0, 3], np.uint8), 4).data), 3, 4).tolist()
    [1, 0, 3]

    One that is `nested`, a table, is neither of pairs nor has such a table; one of `runs` is not of runs again.
    """
    form = source.octet()
    kind = np.uint8 if alphabet <= 256 else np.uint16
    if form == SINGLE:
        symbol = source.whole()
        if symbol >= alphabet:
            raise ArtifactError(f"the symbol {symbol:,} is none of {alphabet:,}")
        return np.full(count, symbol, kind)
    if form in (PAIRS, RUNS):
        length = 2 if form == PAIRS else source.octet()
        most = PAIRED**2 if form == PAIRS else LARGEST
        if (
            nested
            or runs
            or alphabet < 2
            or not (form == PAIRS or 3 <= length <= LONGEST)
            or alphabet**length > most
        ):
            raise ArtifactError(f"runs of {length} of {alphabet:,} symbols")
        plain = read(source, -(-count // length), alphabet**length, nested=nested, runs=form == RUNS)
        return _apart(plain, count, alphabet, length)
    if count > 8 * source.left:
        raise ArtifactError(f"{count:,} symbols cannot be in {source.left:,} bytes")
    if form == EQUAL:
        symbols = source.bits(count, _width(alphabet), kind)
        if int(symbols.max(initial=0)) >= alphabet:
            raise ArtifactError(f"the symbol {int(symbols.max()):,} is none of {alphabet:,}")
        return symbols
    if form != HUFFMAN:
        raise ArtifactError(f"there is no form {form} of a sequence")
    return _read_huffman(source, count, alphabet, nested=nested)


def _joined(symbols: Symbols, alphabet: int, length: int) -> Symbols:
    """Neighbours as one number.

    >>> _joined(np.array([1, 2, 1], np.uint8), 3, 2)
    array([5, 3], dtype=uint8)
    """
    kind = np.dtype(np.uint8 if alphabet**length <= 256 else np.uint16)
    found = np.zeros(-(-len(symbols) // length), kind)
    for place in range(length):
        digits = symbols[place::length]
        found *= kind.type(alphabet)
        found[: len(digits)] += digits.astype(kind)
    return found


def _apart(runs: Symbols, count: int, alphabet: int, length: int) -> Symbols:
    """What `_joined` took."""
    symbols = _digits(alphabet, length)[runs].reshape(-1)
    if symbols[count:].any():
        raise ArtifactError("a symbol follows after the last")
    return symbols[:count]


@functools.lru_cache(maxsize=256)
def _digits(alphabet: int, length: int) -> Symbols:
    """The symbols of each run; a file may ask for them once a sequence."""
    places = alphabet ** np.arange(length - 1, -1, -1)
    return (np.arange(alphabet**length)[:, None] // places % alphabet).astype(np.uint8)


def _read_huffman(source: Octets, count: int, alphabet: int, *, nested: bool) -> Symbols:
    log, shortest, entry = source.octet(), source.octet(), source.octet()
    if log > MOST_STREAMS or not 1 <= shortest <= huffman.LIMIT or not nested <= entry <= 5:
        raise ArtifactError("the streams or the code lengths are impossible")
    table = source.bits(alphabet, entry) if entry else read(source, alphabet, ENTRIES, nested=True)
    table = table.astype(np.int64)
    lengths = np.where(table > 0, np.minimum(table + shortest - 1, 255), 0).astype(np.uint8)
    huffman.check_lengths(lengths)
    smallest, spread = source.whole(), source.octet()
    if spread > 32 or smallest > source.left:
        raise ArtifactError("the sizes of the streams are impossible")
    sizes = source.bits(1 << log, spread) + smallest
    total = int(sizes.sum())
    if count > 8 * total:  # no code has fewer bits than one
        raise ArtifactError(f"{count:,} symbols cannot be in {total:,} bytes of streams")
    if log < MOST_STREAMS and 8 * total > (2 * BITS_A_STREAM + 8) << log:
        raise ArtifactError("there are fewer streams than are written for so many bytes")  # each costs steps
    if log and 8 * total < BITS_A_STREAM << log:
        raise ArtifactError("there are more streams than are written for so few bytes")  # each costs time
    return lockstep.decode(source.take(total), sizes, count, lengths)


def _counts(symbols: Symbols, alphabet: int) -> np.ndarray:
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, len(symbols), 1 << 20):
        counts += np.bincount(symbols[start : start + (1 << 20)], minlength=alphabet)
    return counts


def _width(alphabet: int) -> int:
    return max(1, (alphabet - 1).bit_length())
