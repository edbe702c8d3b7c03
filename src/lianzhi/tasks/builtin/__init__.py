"""The tasks that have a name, one a file. A new file in this folder is found by itself."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every file of this folder, which registers its task."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
