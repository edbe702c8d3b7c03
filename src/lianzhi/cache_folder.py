"""Where the cache folder is. Imports nothing, so that completing a name in a shell is quick."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """`LIANZHI_CACHE`, else ``lianzhi`` in `XDG_CACHE_HOME`, else ``~/.cache/lianzhi``; it may not exist yet."""
    own = os.environ.get("LIANZHI_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lianzhi"
