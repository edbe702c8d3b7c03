"""Sorted tables of keys and values in LevelDB's format, in which TensorFlow writes the index of a checkpoint.

The file is blocks, and a footer of 48 bytes that says where the index block lies. A block is entries, each ``(bytes shared with
the key before, further bytes of the key, bytes of the value)`` and then those bytes; a list of restarts; a byte for its
compression (none or snappy); and a checksum, which is compared. Blocks follow one another and none is empty, so that what is
read is bounded by the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from lianzhi.models.checkpoints.crc32c import crc32c, unmasked
from lianzhi.models.checkpoints.wire import varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER = 48
MOST_BYTES = 1 << 26
MOST_OF_KEYS = 1 << 25  # bytes of all keys together, for prefixes that are shared could make them huge
LONGEST_KEY = 1 << 12
_TRAILER = 5
_MOST_GAIN = 32  # snappy copies at most 64 bytes by 3
_PLAIN, _SNAPPY = 0, 1


def is_table(data: bytes) -> bool:
    """Whether a file that ends so is such a table."""
    return len(data) >= FOOTER and data.endswith(MAGIC)


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a whole file, by rising key.

    Raises:
        ValueError: the file is none, or is damaged; what is wrong.
    """
    if not is_table(data):
        raise ValueError("it does not end as such a file does, so it is cut off or something else")
    footer = data[-FOOTER:]
    _, place = _handle(footer, 0)
    index, _ = _handle(footer, place)
    left, before, read = MOST_OF_KEYS, None, 0
    for _, value in _pairs(_block(data, index)):
        handle, _ = _handle(value, 0)
        if handle[0] < read:
            raise ValueError("its blocks overlap")
        read = sum(handle) + _TRAILER
        pairs = list(_pairs(_block(data, handle)))
        if not pairs:
            raise ValueError("it has an empty block")
        for key, found in pairs:
            left -= len(key)
            if left < 0:
                raise ValueError(f"its keys are more than {MOST_OF_KEYS:,} bytes")
            if before is not None and key <= before:
                raise ValueError("its keys are not in order")
            before = key
            yield key, found


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Where a block lies and how long it is, and where the handle ends."""
    offset, place = varint(data, place)
    size, place = varint(data, place)
    return (offset, size), place


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    """The block at a handle, checked and without its compression."""
    offset, size = handle
    end = offset + size + _TRAILER
    if end > len(data) - FOOTER:
        raise ValueError(f"a block of {size:,} bytes at {offset:,} in a file of {len(data):,}")
    stored = int.from_bytes(data[end - 4 : end], "little")
    if crc32c(data[offset : end - 4]) != unmasked(stored):
        raise ValueError(f"the checksum of the block at {offset:,} differs")
    content, kind = data[offset : offset + size], data[offset + size]
    if kind == _PLAIN:
        return content
    if kind == _SNAPPY:
        return _without_snappy(content)
    raise ValueError(f"a block of the unknown compression {kind}")


def _without_snappy(content: bytes) -> bytes:
    import pyarrow as pa

    size, _ = varint(content, 0)
    if size > _MOST_GAIN * len(content):
        raise ValueError(f"a block of {len(content):,} bytes that would be {size:,} without compression")
    try:
        return bytes(pa.decompress(content, decompressed_size=size, codec="snappy", asbytes=True))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"a compressed block is damaged ({error})") from None


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block."""
    if len(block) < 4:
        raise ValueError("a block is cut off")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError(f"a block of {len(block):,} bytes with {restarts:,} restarts")
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place)
        further, place = varint(block, place)
        length, place = varint(block, place)
        if shared > len(key) or shared + further > LONGEST_KEY or further + length > end - place:
            raise ValueError("an entry is longer than its block, or its key longer than any name")
        key = key[:shared] + block[place : place + further]
        value = block[place + further : place + further + length]
        place += further + length
        yield key, value
