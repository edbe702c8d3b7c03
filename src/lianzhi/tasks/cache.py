"""The cache folder: what was downloaded, and images that were decoded, kept for the next run.

It is ``LIANZHI_CACHE``, else ``lianzhi`` in ``XDG_CACHE_HOME``, else ``~/.cache/lianzhi``. Everything in it can
be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.cache_folder import folder

WHOLE = 256 * 2**20  # files up to this size are digested whole, larger ones by their size, head and tail
ENDS = 2**20


def digest_files(files: Iterable[Path], *, always_whole: bool = False) -> str:
    """A digest of the files' contents, independent of where they lie and when they were written.

    Of a large file that has no table of contents, as a text, only the whole says what is in it.
    """
    whole = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        whole.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            if always_whole or size <= WHOLE:
                while chunk := stream.read(2**22):
                    whole.update(chunk)
            else:
                whole.update(stream.read(ENDS))
                stream.seek(-ENDS, os.SEEK_END)  # a Parquet file's table of contents is at its end
                whole.update(stream.read(ENDS))
    return whole.hexdigest()[:32]


def array(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array of that key from the cache, else made, and kept where the disk allows.

    It is mapped into memory, read-only: several processes share one copy.
    """
    file = folder() / "arrays" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing, empty or damaged: made again
        return np.load(file, mmap_mode="r", allow_pickle=False)
    made = make()
    with contextlib.suppress(OSError):  # a full or read-only disk costs the next run its short cut, no more
        write(file, lambda stream: np.save(stream, made, allow_pickle=False))
    return made


def write(file: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file under a temporary name and rename it, so that it is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
