"""Fields of a protocol buffer in its wire format, for messages whose few fields we know; lengths are compared first."""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | bytes]
_VARINT, _EIGHT, _COUNTED, _FOUR = 0, 1, 2, 5
_LONGEST_VARINT = 10


def varint(data: bytes, place: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where it ends.

    >>> varint(bytes([0xAC, 0x02, 0xFF]), 0)
    (300, 2)

    Raises:
        ValueError: the data end within the number, or it has more than 64 bits.
    """
    value = 0
    for count in range(_LONGEST_VARINT):
        if place + count >= len(data):
            raise ValueError("a number is cut off")
        byte = data[place + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, place + count + 1
    raise ValueError("a number of more than 64 bits")


def signed(value: int) -> int:
    """An int64 as it is stored: negative numbers in two's complement.

    >>> signed((1 << 64) - 1)
    -1
    """
    return value - (1 << 64) if value >= 1 << 63 else value


def fields(data: bytes) -> Iterator[Field]:
    """Number and value of each field, in order: numbers as unsigned ints, the rest as bytes.

    >>> list(fields(bytes([0x08, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 1), (2, b'hi')]

    Raises:
        ValueError: the data are no message; what is wrong.
    """
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if number == 0:
            raise ValueError("a field without a number")
        if kind == _VARINT:
            value, place = varint(data, place)
        elif kind in (_EIGHT, _FOUR, _COUNTED):
            length = 8 if kind == _EIGHT else 4
            if kind == _COUNTED:
                length, place = varint(data, place)
            if length > len(data) - place:
                raise ValueError(f"a field of {length:,} bytes, and {len(data) - place:,} are left")
            value = data[place : place + length]
            place += length
            if kind != _COUNTED:
                value = int.from_bytes(value, "little")
        else:
            raise ValueError(f"a field of the unknown wire type {kind}")
        yield number, value
