"""A few bit streams, written and read without a step for each symbol.

The steps of `lockstep.py` do a symbol of every stream in a few calls of NumPy, and of a few streams the calls cost more than
what they do. Here every call does all symbols of a group of streams: more work in far fewer calls.

Written, each code is shifted to its place in a number of 64 bits, and the halves that fall into the same word are added up.

Read, which bit begins a code follows from which bit began the one before. What a code at each bit would be, and where the
next one would begin, is looked up for all bits at once, though most begin none. Then a step is one look at that table; and the
table applied to itself jumps two codes at once, that again four, so that of 2^n steps one is taken and those between are
filled in, a level at a time, in all gaps together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.codebook.huffman import LIMIT, Lengths, codes

FEW = 128  # streams; with more, steps of all at once are faster
GROUP = 16  # streams whose bits are looked at together: what is noted of them stays in the processor's cache
COST = 256  # bits of a table that are looked up in the time of a call

Positions = NDArray[np.int64]
Tables = tuple[NDArray[Any], NDArray[np.int64], int]  # of `huffman.decode_table`


def write(symbols: NDArray[Any], lengths: Lengths, sizes: Positions) -> bytes:
    """The streams, one after the other, of `sizes` bytes; symbol i is in stream i mod their number.

    >>> write(np.array([0, 1, 1, 0], np.uint8), np.array([1, 1], np.uint8), np.array([1, 1])).hex()
    '4080'
    """
    streams, table = len(sizes), codes(lengths)
    return b"".join(
        _written(
            [symbols[stream::streams] for stream in range(first, min(first + GROUP, streams))],
            lengths,
            table,
            sizes[first : first + GROUP],
        )
        for first in range(0, streams, GROUP)
    )


def _written(
    parts: list[NDArray[Any]], lengths: Lengths, table: NDArray[np.uint64], sizes: Positions
) -> bytes:
    """The same of some streams, whose symbols are given."""
    symbols = np.concatenate(parts)
    bits = lengths.astype(np.int64).take(symbols)
    ends = np.cumsum(bits)
    counts = np.array([len(part) for part in parts])
    before = np.concatenate([[0], ends])[np.cumsum(counts) - counts]  # bits of the streams before
    filled = 8 * (np.cumsum(sizes) - sizes) - before  # with which each of them ends at a whole byte
    places = ends - bits + np.repeat(filled, counts)
    words = places >> 5
    shifted = table.take(symbols) << (64 - (places & 31) - bits).astype(np.uint64)
    total = int(sizes.sum())
    found = np.zeros(total // 4 + 2)  # a word's codes do not overlap, so that a sum has at most 32 bits
    found += np.bincount(words, shifted >> np.uint64(32), len(found))
    found[1:] += np.bincount(words, shifted & np.uint64(0xFFFFFFFF), len(found) - 1)
    return found.astype(">u4").tobytes()[:total]


def read(data: bytes, begins: Positions, out: NDArray[Any], rest: int, tables: Tables) -> Positions:
    """Fill `out`, a row of symbols a step and a column a stream; in its last row the first `rest` columns only, if not 0.

    `begins` are the streams' first bits. Returns the bit after the last code of each stream; where that is beyond the
    stream's end, its symbols mean nothing.

    >>> from lianzhi.codebook.huffman import decode_table
    >>> out = np.empty((2, 2), np.uint8)
    >>> read(b"\\x40\\x80", np.array([0, 8]), out, 0, decode_table(np.array([1, 1], np.uint8))).tolist(), out.tolist()
    ([2, 10], [[0, 1], [1, 0]])
    """
    ends = np.empty_like(begins)
    for first in range(0, len(begins), GROUP):
        own = slice(first, first + GROUP)
        start = int(begins[first]) // 8
        stop = int(begins[first + GROUP]) // 8 if first + GROUP < len(begins) else len(data)
        longer = min(max(0, rest - first), GROUP) if rest else len(begins)
        found = _group(data[start:stop], begins[own] - 8 * start, out[:, own], longer, tables)
        ends[own] = found + 8 * start
    return ends


def _group(data: bytes, begins: Positions, out: NDArray[Any], longer: int, tables: Tables) -> Positions:
    """The same of some streams; the first `longer` have a symbol in the last row."""
    symbols, bits, longest = tables
    patterns = _patterns(data, longest)
    size, steps = 8 * len(data), len(out)
    lost = size + LIMIT  # where no stream ends
    after = np.full(lost + 1, lost)
    np.add(bits.take(patterns[:size]), np.arange(size), out=after[:size])
    levels = [after]
    doublings = (COST * steps // max(1, size)).bit_length() - 1
    for _ in range(min(doublings, steps.bit_length() - 1)):
        levels.append(levels[-1].take(levels[-1]))
    places = _places(begins, steps, levels)
    out[:] = symbols.take(patterns.take(places[:-1], mode="clip"))
    return np.concatenate([places[-1, :longer], places[-2, longer:]]) if steps else begins


def _patterns(data: bytes, longest: int) -> Positions:
    """The next `longest` bits from each bit, zeros after the last; those of a byte more."""
    octets = np.frombuffer(data + bytes(3), np.uint8).astype(np.uint32)
    windows = (octets[:-2] << np.uint32(16)) | (octets[1:-1] << np.uint32(8)) | octets[2:]
    down = (24 - longest - np.arange(8)).astype(np.uint32)
    found = (windows[:, None] >> down) & np.uint32((1 << longest) - 1)
    return found.astype(np.int64).reshape(-1)


def _places(begins: Positions, steps: int, levels: list[Positions]) -> Positions:
    """The bit that each code begins with, a row a step, and the one after the last."""
    places = np.empty((steps + 1, len(begins)), np.int64)
    places[0] = begins
    stride = 1 << (len(levels) - 1)
    for row in range(stride, steps + 1, stride):
        levels[-1].take(places[row - stride], out=places[row], mode="clip")
    for level in levels[-2::-1]:
        half = stride // 2
        places[half::stride] = level.take(places[: steps + 1 - half : stride])
        stride = half
    return places
