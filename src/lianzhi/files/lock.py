"""A lock on a folder, held by one process until it lets go or ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from lianzhi.errors import ArtifactError

try:
    import fcntl
except ImportError:  # not on Windows, where a run is not guarded
    fcntl = None  # type: ignore[assignment]

NAME = "lock"


class FolderLock:
    """`take` refuses a folder that another run holds; the system frees the lock of a process that was killed."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def take(self, folder: Path) -> None:
        """Take the lock in a folder that exists, instead of one that is held already."""
        self.release()
        if fcntl is None:
            return
        file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise ArtifactError(
                f"{folder.parent}: another run is writing here{f' (process {holder})' if holder else ''}; "
                f"wait for it, stop it, or give another folder"
            ) from None
        except OSError:  # a file system without locks
            file.close()
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go of it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.release()
