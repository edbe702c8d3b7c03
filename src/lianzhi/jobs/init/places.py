"""Where `init` looks: the current folder and one folder below, without what is hidden or made by tools."""

from __future__ import annotations

from pathlib import Path

LEFT_OUT = frozenset(
    {"out", "build", "dist", "node_modules", "__pycache__", "venv", "site-packages", "tests", "docs"}
)
MOST = 2000


def entries(folder: Path) -> list[Path]:
    """Files and folders here, then those of the folders here, at most 2,000; paths begin as `folder` does.

    A folder of very many files, such as one of images, is not gone through.
    """
    here = _children(folder)
    below = [entry for place in here if place.is_dir() for entry in _children(place)]
    return [*here, *below][:MOST]


def _children(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        for entry in folder.iterdir():
            if not entry.name.startswith(".") and entry.name not in LEFT_OUT:
                found.append(entry)
            if len(found) > MOST:
                return []
    except OSError:
        return []
    return sorted(found)
