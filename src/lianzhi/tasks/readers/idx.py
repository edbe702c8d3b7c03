"""IDX files (MNIST and its kin), plain or gzipped: a magic number, the sizes, then the bytes.

http://yann.lecun.com/exdb/mnist/ describes the format: two zero bytes, the type (8: unsigned byte), the number
of axes, each size as a big-endian 32-bit number, the values.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError

LIMIT = 2**32


def find(folder: Path, stem: str) -> Path | None:
    """The file of that name, with or without ``.gz``, in the folder or in torchvision's ``raw`` below it."""
    places = [folder, folder / "raw", *sorted(folder.glob("*/raw"))]
    for place in places:
        for name in (f"{stem}.gz", stem, stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"):
            if (place / name).is_file():
                return place / name
    return None


def read(
    file: Path, axes: int, *, sha256: str | None = None, sha256_packed: str | None = None
) -> NDArray[np.uint8]:
    """Return the array of an IDX file with so many axes.

    `sha256` is that of the unpacked contents, `sha256_packed` that of the ``.gz`` file.

    Raises:
        DataError: the file is missing, truncated, damaged, of another kind, or has another checksum.
    """
    packed = file.suffix == ".gz"
    try:
        if packed and sha256_packed is not None:
            _check(file, hashlib.sha256(file.read_bytes()).hexdigest(), sha256_packed)
        with gzip.open(file, "rb") if packed else file.open("rb") as stream:
            header, shape = _header(stream, file, axes)
            size = math.prod(shape)
            values = stream.read(size + 1)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: truncated or damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    if len(values) != size:
        found = f"{len(values):,}" if len(values) < size else f"more than {size:,}"
        raise DataError(
            f"{file}: truncated or damaged: {found} bytes follow its header, which says {size:,}; get it again"
        )
    if sha256 is not None:
        _check(file, hashlib.sha256(header + values).hexdigest(), sha256)
    return np.frombuffer(values, np.uint8).reshape(shape)


def _header(stream: Any, file: Path, axes: int) -> tuple[bytes, tuple[int, ...]]:
    header = stream.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:4] != bytes([0, 0, 8, axes]):
        raise DataError(
            f"{file}: not an IDX file of bytes with {axes} axes (it begins with {header[:4].hex()}, "
            f"expected {bytes([0, 0, 8, axes]).hex()}); get it again"
        )
    shape = tuple(int.from_bytes(header[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    if math.prod(shape) > LIMIT:
        raise DataError(f"{file}: its header says {shape}, more than 4 GiB; it is damaged: get it again")
    return header, shape


def _check(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            f"{file}: wrong checksum (sha256 {found[:16]}…, expected {expected[:16]}…): not the published file; "
            f"get it again, or set verify: false if it is changed on purpose"
        )
