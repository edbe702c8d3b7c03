"""Several bit streams written and read in lockstep, one symbol of each at every step.

Symbol i of a sequence is in stream i mod S, so that a step's symbols lie side by side in the sequence. A step is a
few NumPy operations on S numbers; no loop in Python runs over symbols. Bits are written from the highest of a byte
to its lowest; every stream begins with a byte of its own.

Reading takes a window of 64 bits at a multiple of 32, which holds the next 33 bits for sure: enough for two codes of
16 bits, three of 11 or four of 8, which are decoded before the next window. A few streams are written and read otherwise: `few_streams.py`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.codebook import few_streams
from lianzhi.codebook.huffman import Lengths, codes, decode_table
from lianzhi.errors import ArtifactError

SURE = 33
THREADED = 2048  # fewer streams are not worth a second thread

Symbols = NDArray[Any]  # of eight or sixteen bits, unsigned


def encode(symbols: Symbols, lengths: Lengths, streams: int) -> tuple[bytes, NDArray[np.int64]]:
    """The streams, one after the other, and how many bytes each has.

    >>> data, sizes = encode(np.array([0, 1, 1, 0], np.uint8), np.array([1, 1], np.uint8), 2)
    >>> data.hex(), sizes.tolist()
    ('4080', [1, 1])
    """
    sizes = -(-_stream_bits(symbols, lengths, streams) // 8)
    if streams <= few_streams.FEW:
        return few_streams.write(symbols, lengths, sizes), sizes
    return _in_steps(symbols, lengths, sizes), sizes


def _in_steps(symbols: Symbols, lengths: Lengths, sizes: NDArray[np.int64]) -> bytes:
    """The bytes of `encode`, a symbol of each stream at a time."""
    streams = len(sizes)
    words = int(sizes.max(initial=0)) // 4 + 2
    matrix = np.zeros((streams, words), np.uint32)
    flat, at = matrix.reshape(-1), np.arange(streams) * words
    table, bits = codes(lengths), lengths.astype(np.uint64)
    held, free = np.zeros(streams, np.uint64), np.full(streams, 64, np.uint64)
    for start in range(0, len(symbols), streams):
        row = symbols[start : start + streams]
        count = len(row)
        own, room, place = held[:count], free[:count], at[:count]
        room -= bits[row]
        own |= table[row] << room
        flat[place] = own >> np.uint64(32)
        full = room <= 32
        place += full
        shift = full * np.uint64(32)
        own <<= shift
        room += shift
    flat[at] = held >> np.uint64(32)
    octets = matrix.astype(">u4").view(np.uint8).reshape(streams, -1)
    return octets[np.arange(octets.shape[1]) < sizes[:, None]].tobytes()


def _stream_bits(symbols: Symbols, lengths: Lengths, streams: int) -> NDArray[np.int64]:
    whole = len(symbols) // streams * streams
    total = np.zeros(streams, np.int64)
    for start in range(0, whole, step := max(1, (1 << 20) // streams) * streams):
        part = lengths[symbols[start : min(start + step, whole)]]
        total += part.reshape(-1, streams).sum(0, dtype=np.int64)
    total[: len(symbols) - whole] += lengths[symbols[whole:]]
    return total


def decode(data: bytes, sizes: NDArray[np.int64], count: int, lengths: Lengths) -> Symbols:
    """The `count` symbols whose streams `encode` wrote. Raises `ArtifactError` if the streams do not end with them.

    >>> decode(b"\\x40\\x80", np.array([1, 1]), 4, np.array([1, 1], np.uint8)).tolist()
    [0, 1, 1, 0]
    """
    streams = len(sizes)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    steps, rest = divmod(count, streams)
    kind = np.uint8 if len(lengths) <= 256 else np.uint16
    out = np.empty((steps + (rest > 0), streams), kind)
    symbols, bits, longest = decode_table(lengths)
    tables = (symbols.astype(kind), bits, longest)
    if streams <= few_streams.FEW:
        position = few_streams.read(data, 8 * begins, out, rest, tables)
    else:
        position = 8 * begins
        _in_threads(_windows(data), position, out, rest, tables)
    if not np.array_equal(-(-position // 8), ends):
        raise ArtifactError("its streams do not end where its symbols do")
    return out.reshape(-1)[:count]


def _in_threads(
    windows: NDArray[np.uint64],
    position: NDArray[np.int64],
    out: Symbols,
    rest: int,
    tables: few_streams.Tables,
) -> None:
    """Decode all rows of `out`, of the last only the first `rest` columns, if not 0; `position` moves on."""
    streams, steps = len(position), len(out) - (rest > 0)
    parts = (os.cpu_count() or 1) if streams >= THREADED and steps > 16 else 1
    cuts = [streams * part // min(parts, 4) for part in range(min(parts, 4) + 1)]

    def run(part: int) -> None:
        begin, end = cuts[part], cuts[part + 1]
        _steps(windows, position[begin:end], out[:steps, begin:end], tables)

    if len(cuts) == 2:
        run(0)
    else:
        with ThreadPoolExecutor(len(cuts) - 1) as pool:
            list(pool.map(run, range(len(cuts) - 1)))
    if rest:
        _steps(windows, position[:rest], out[steps:, :rest], tables)


def _windows(data: bytes) -> NDArray[np.uint64]:
    """64 bits from each multiple of 32."""
    padded = data + bytes(-len(data) % 4 + 8)
    return np.ndarray(len(padded) // 4 - 1, ">u8", padded, strides=(4,)).astype(np.uint64)


def _steps(
    windows: NDArray[np.uint64],
    position: NDArray[np.int64],
    out: Symbols,
    tables: few_streams.Tables,
) -> None:
    """Decode a symbol of every stream into each row of `out`; `position` moves on."""
    symbols, bits, longest = tables
    streams = len(position)
    index, used = np.empty(streams, np.int64), np.empty(streams, np.int64)
    window, top = np.empty(streams, np.uint64), np.empty(streams, np.uint64)
    pattern, shift = top.view(np.int64), used.view(np.uint64)
    down = np.uint64(64 - longest)
    at = 0
    while at < len(out):
        np.right_shift(position, 5, out=index)
        windows.take(index, out=window, mode="clip")
        np.bitwise_and(position, 31, out=used)
        np.left_shift(window, shift, out=window)
        for row in out[at : at + SURE // longest]:
            np.right_shift(window, down, out=top)
            symbols.take(pattern, out=row, mode="clip")
            bits.take(pattern, out=used, mode="clip")
            np.left_shift(window, shift, out=window)
            np.add(position, used, out=position)
        at += SURE // longest
