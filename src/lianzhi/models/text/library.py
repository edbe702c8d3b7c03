"""The library `transformers`: imported when it is needed, and what stands in its way in words."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import Any

from lianzhi.errors import TargetError

INSTALL = "pip install 'lianzhi[text]'"


def transformers() -> Any:
    """The library, with its telemetry off.

    Raises:
        TargetError: it is not installed, or something beside it keeps it from being imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault(
        "DISABLE_SAFETENSORS_CONVERSION", "1"
    )  # else pickles on the hub are sent to be converted
    if importlib.util.find_spec("transformers") is None:
        raise TargetError(f"Hugging Face models need transformers, which is not installed; run: {INSTALL}")
    with explained():
        return importlib.import_module("transformers")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Run the library quietly; where a torchvision of another build breaks its imports, say so."""
    try:
        with _quiet():
            yield
    except (ImportError, RuntimeError, AttributeError, ModuleNotFoundError) as error:
        wrong = broken_torchvision()
        if wrong is None or not _is_import(error):
            raise
        raise TargetError(
            f"transformers cannot be imported, because the installed torchvision {_version('torchvision')} does not "
            f"match torch {_version('torch')} ({wrong}); run: pip uninstall torchvision, or install the one that matches"
        ) from error


def broken_torchvision() -> str | None:
    """Why an installed torchvision cannot be imported; None where it can, or is not there."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:150]
    return None


def _is_import(error: BaseException) -> bool:
    """Whether importing failed: by its type, or because torchvision is what the message is about."""
    found: BaseException | None = error
    while found is not None:
        text = str(found).lower()
        if isinstance(found, ImportError) or "torchvision" in text or "failed to import" in text:
            return True
        found = found.__cause__ or found.__context__
    return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(of unknown version)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars, reports and warnings: what matters of them is told by who asks."""
    import logging

    log = logging.getLogger("transformers")
    before = log.level
    log.setLevel(logging.CRITICAL)
    bars = _bars()
    if bars is not None:
        bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
        if bars is not None:
            bars.enable_progress_bar()


def _bars() -> Any:
    """The library's own switch of its bars, once it is imported."""
    import sys

    return sys.modules.get("transformers.utils.logging")
