"""Write a file or a folder whole or not at all; read with a limit; join paths safely.

A file is written under a temporary name beside its own, flushed to the disk and renamed. A process killed at
any moment, or a full disk, leaves the old one or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lianzhi.errors import ArtifactError

PathLike = str | os.PathLike[str]

ABANDONED = 3600  # seconds after which a file that no process here writes is nobody's

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: OSError, path: PathLike, doing: str) -> ArtifactError:
    """The operating system's error in words, with the fix.

    >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), "out/a.json", "written"))
    out/a.json cannot be written: the disk is full; free some space, or choose a folder on another disk
    """
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        hint = "the disk is full; free some space, or choose a folder on another disk"
    elif error.errno in _REFUSED:
        hint = "permission denied; choose a folder that you may write to, or change its permissions"
        if doing == "read":
            hint = "permission denied; change its permissions"
    elif error.errno == errno.ENOENT:
        hint = "there is no such file or folder"
    else:
        hint = reason
    return ArtifactError(f"{os.fspath(path)} cannot be {doing}: {hint}")


def make_folder(path: PathLike) -> Path:
    """Make a folder and those above it, unless they are there; return it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ArtifactError(
            f"{folder} is a file, and a folder of that name is needed; give another path"
        ) from None
    except OSError as error:
        raise explain(error, folder, "made") from error
    return folder


def require_writable(path: PathLike) -> Path:
    """Return the path of a folder that files can be written into, or that can be made. Writes nothing.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     require_writable(file.name + "/cache")          # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: ... is a file, and a folder of that name is needed; give another path
    """
    folder = _looked_up(path)
    above = next((one for one in (folder, *folder.absolute().parents) if os.path.lexists(one)), Path("/"))
    if not above.is_dir():
        raise ArtifactError(f"{above} is a file, and a folder of that name is needed; give another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise explain(PermissionError(errno.EACCES, "Permission denied"), folder, "written")
    return folder


def require_empty(path: PathLike) -> Path:
    """Return the path, or raise `ArtifactError` if something is there already. Writes nothing."""
    folder = _looked_up(path)
    if folder.is_symlink() and not folder.exists():
        raise ArtifactError(f"{folder} is a link to nothing; give another folder")
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; give a folder for the output")
    try:
        found = sorted(os.listdir(folder))
    except OSError as error:
        raise explain(error, folder, "read") from error
    if found:
        shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise ArtifactError(
            f"{folder}: the folder is not empty (it holds {shown}); nothing was written. "
            f"Give another folder, or allow overwriting (--force, overwrite=True)"
        )
    return folder


def _looked_up(path: PathLike) -> Path:
    """The path. Raises `ArtifactError` if no file can have it: a name that is too long, or with a null byte."""
    folder = Path(path)
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise explain(error, f"{folder!s:.200}", "made") from None
    except ValueError as error:
        raise ArtifactError(f"{str(folder)!r:.200} is not a path: {error}") from None
    return folder


def member(folder: PathLike, name: Any) -> Path:
    """A file's path inside a folder; a name that leaves the folder, or a link, is refused.

    >>> member("out", "../secret")
    Traceback (most recent call last):
        ...
    lianzhi.errors.ArtifactError: out: '../secret' is not the name of a file in the folder
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w\-+ ][\w.\-+ ]{0,199}", name):
        raise ArtifactError(f"{os.fspath(folder)}: {name!r:.200} is not the name of a file in the folder")
    path = Path(folder) / name
    if path.is_symlink():
        raise ArtifactError(
            f"{path} is a link; an artifact holds plain files only. Put the file itself there"
        )
    return path


def is_text(name: str) -> bool:
    r"""Whether a name can be written as UTF-8, which half a sign cannot, nor a file's name in another encoding.

    >>> is_text("权重"), is_text("\ud83d")
    (True, False)
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` when the block ends without an error.

    Several threads, processes and machines may write one path at once: the last to end wins. What a killed process left half
    written for the path is removed once it is an hour old: until then it may be of a live process of another machine.
    """
    target = Path(path)
    if "\0" in str(target):
        raise ArtifactError(f"{str(target)!r} is not a path: embedded null byte")
    if not target.name:
        raise ArtifactError(f"{os.fspath(path)!r} names no file; give the name of one")
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.writing")
    with contextlib.suppress(OSError):  # a folder that may be written to and not listed, say
        for left, kind in _left_behind(target):
            if kind == "writing" and not left.is_dir() and time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink(missing_ok=True)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise explain(error, target, "written") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: PathLike, data: bytes) -> Path:
    """Write a file, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: PathLike, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, value: Any) -> Path:
    """Write JSON, whole or not at all. NaN and infinity, which JSON has not, are refused."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{os.fspath(path)} cannot be written: not JSON ({error})") from error
    return write_text(path, text + "\n")


def read_bytes(path: PathLike, limit: int = 1 << 30) -> bytes:
    """Read a regular file of at most `limit` bytes."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ArtifactError(f"{os.fspath(path)} has {size:,} bytes; at most {limit:,} are read")
            return file.read(size)
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError):
            raise ArtifactError(f"{path!r} is not a path: {error}") from None
        raise explain(error, path, "read") from error


def read_text(path: PathLike, limit: int = 1 << 26) -> str:
    """Read a UTF-8 text file of at most `limit` bytes."""
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise ArtifactError(f"{os.fspath(path)} is damaged: it is not UTF-8 text; restore it") from None


@contextlib.contextmanager
def whole_folder(
    path: PathLike, *, overwrite: bool = False, owned: frozenset[str] = frozenset()
) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `path` when the block ends without an error.

    A folder that is not empty is refused unless `overwrite`; then the files named in `owned` are replaced
    or removed, and all others stay. A link to a folder stays one: what it leads to is written. What a killed process
    left half done is undone, or finished, first.
    """
    target = Path(os.path.abspath(path))
    if target.is_symlink() and target.is_dir():
        target = Path(os.path.realpath(target))
    _sweep(target, owned)
    if not overwrite:
        require_empty(target)
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.writing")
    backup = target.with_name(f".{target.name}.{os.getpid()}.before")
    try:
        temporary.mkdir()
        yield temporary
        _flush(temporary)
        if overwrite and target.is_dir() and any(target.iterdir()):
            os.rename(target, backup)
            os.rename(temporary, target)
            _carry_over(backup, target, owned)
        else:
            os.rename(temporary, target)
        _flush(target.parent)
    except BaseException as error:
        if backup.exists() and not target.exists():
            os.rename(backup, target)
        if isinstance(error, OSError):
            raise explain(error, target, "written") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _carry_over(backup: Path, target: Path, owned: frozenset[str]) -> None:
    """Move what is not ours from the old folder into the new one, then drop the old one."""
    for name in os.listdir(backup):
        if name not in owned and not (target / name).exists():
            os.rename(backup / name, target / name)
    shutil.rmtree(backup)


def _sweep(target: Path, owned: frozenset[str]) -> None:
    """Remove temporary folders for this target whose process has ended; a folder that it had put aside comes back."""
    for left, kind in _left_behind(target):
        if kind == "writing":
            shutil.rmtree(left, ignore_errors=True)
        elif target.exists():
            _carry_over(left, target, owned)
        else:
            os.rename(left, target)


def _left_behind(target: Path) -> list[tuple[Path, str]]:
    """What processes that have ended left beside this target, and whether they were ``writing`` it or put it aside ``before``."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)(?:-[0-9a-f]+)?\.(writing|before)")
    names = os.listdir(target.parent) if os.path.isdir(target.parent) else []
    found = [match for match in map(pattern.fullmatch, names) if match and not _alive(int(match[1]))]
    return [(target.parent / match[0], match[2]) for match in found]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return process != os.getpid()


def open_regular(path: str, flags: int) -> int:
    """Open without waiting (a FIFO would block), and only what is a plain file."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a plain file")
    return handle


def _flush(path: Path) -> None:
    """Ask the disk to keep a file, or a folder's entries, through a power cut too."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
