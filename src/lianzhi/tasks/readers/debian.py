"""Files of a Debian package, fetched and unpacked into the cache without root.

``apt-get download`` and ``dpkg-deb -x`` need no rights; apt checks the archive's signature. Where the machine has
no package lists (a fresh container), they are fetched into a temporary folder first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lianzhi.errors import DataError

PATIENCE = 600  # seconds


def fetch(package: str, inside: str, destination: Path) -> Path:
    """Put the folder `inside` of a package at `destination`, and return it.

    Raises:
        DataError: there is no apt here, or it cannot get the package; the message holds its own words.
    """
    if destination.is_dir() and any(destination.iterdir()):
        return destination
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DataError(f"{' and '.join(missing)} not found: not a Debian machine")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".apt-") as name:
            work = Path(name)
            archive = _download(package, work)
            _run(["dpkg-deb", "-x", str(archive), "unpacked"], work)
            found = work / "unpacked" / inside.lstrip("/")
            if not found.is_dir():
                raise DataError(f"the Debian package {package} has no folder {inside}")
            with contextlib.suppress(FileExistsError, OSError):  # another process may have been quicker
                os.rename(found, destination)
    except OSError as error:
        raise DataError(
            f"cannot unpack the Debian package {package} into {destination.parent}: {error}"
        ) from None
    if not destination.is_dir():
        raise DataError(f"cannot put the files of the Debian package {package} at {destination}")
    return destination


def _download(package: str, work: Path) -> Path:
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User="]
    try:
        _run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", package], work)
    except DataError:
        _run(["apt-get", "-q", *own, "update"], work)
        _run(["apt-get", "-q", *own, "download", package], work)
    archives = sorted(work.glob("*.deb"))
    if not archives:
        raise DataError(f"apt-get download {package} left no file")
    return archives[0]


def _run(command: list[str], work: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} did not end within {PATIENCE} s; is the network up?") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = " ".join(lines[-3:]) or f"exit code {done.returncode}"
        raise DataError(f"{' '.join(word for word in command if not word.startswith('Dir'))} failed: {said}")
