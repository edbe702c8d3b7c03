"""What a shell offers when the tab key is pressed: names, and files that a command reads.

Names come from the registries, whose import takes seconds; so they are kept in the cache folder, as long as neither a file of
Lianzhi nor a package that adds names has changed. Where nothing fits the shell offers files by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from lianzhi._version import __version__
from lianzhi.cache_folder import folder
from lianzhi.precisions import PRECISIONS

KINDS = ("criteria", "losses", "methods", "models", "observers", "tasks", "targets", "techniques")
LISTED = (*KINDS, "recipes")
Offer = Callable[[str], list[tuple[str, str]]]


def fixed(*names: str) -> Offer:
    """Offer these.

    >>> fixed("cpu", "cuda")("cu")
    [('cuda', '')]
    """
    return lambda incomplete: [(name, "") for name in names if name.startswith(incomplete)]


def named(kind: str) -> Offer:
    """Offer the names of a registry, with their summaries."""
    return lambda incomplete: [item for item in _names().get(kind, []) if item[0].startswith(incomplete)]


def recipes(incomplete: str) -> list[tuple[str, str]]:
    """Recipes in the folder that was begun, and in ``recipes/``; ONNX files too, which `compress` takes."""
    return _files(incomplete, ("*.yaml", "*.yml", "*.onnx"), "recipes")


def models(incomplete: str) -> list[tuple[str, str]]:
    """Artifact folders, and ONNX and packed files, in the folder that was begun and in ``out/``."""
    return _files(incomplete, ("*/architecture.json", "*.onnx", "*.lzc"), "out")


def any_model(incomplete: str) -> list[tuple[str, str]]:
    """Saved models, Python files, and the models of the zoo."""
    return [*models(incomplete), *_files(incomplete, ("*.py",), ""), *named("models")(incomplete)]


devices = fixed("cpu", "cuda", "mps")
precisions = fixed(*PRECISIONS)
splits = fixed("train", "validation", "calibration", "test")
listed = fixed(*LISTED)


def _files(incomplete: str, patterns: tuple[str, ...], usual: str) -> list[tuple[str, str]]:
    """Files that fit a pattern; of a member of an artifact the folder."""
    places = [os.path.dirname(incomplete)] + ([usual] if usual and not os.path.dirname(incomplete) else [])
    found = {
        str(file.parent if "/" in pattern else file)
        for place in places
        for pattern in patterns
        for file in Path(place).glob(pattern)
    }
    return [
        (name, "")
        for name in sorted(found)
        if name.startswith(os.path.normpath(incomplete) if incomplete else "")
    ]


def _names() -> dict[str, list[tuple[str, str]]]:
    """The names of every registry: kept ones, else read anew and kept."""
    file, key = folder() / "names.json", _state()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["state"] == key:
            return {
                kind: [(str(name), str(summary)) for name, summary in rows]
                for kind, rows in kept["names"].items()
            }
    from lianzhi import jobs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {kind: [(row["name"], row["summary"]) for row in jobs.names(kind)] for kind in KINDS}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"names-{os.getpid()}.part")
        part.write_text(json.dumps({"state": key, "names": found}), encoding="utf-8")
        os.replace(part, file)
    return found


def _state() -> str:
    """What the names depend on: Lianzhi's own files, and the packages that add to them."""
    root = Path(__file__).resolve().parents[1]
    times = [entry.stat().st_mtime_ns for entry in root.rglob("*.py")]
    points = [point for kind in KINDS for point in metadata.entry_points(group=f"lianzhi.{kind}")]
    packages = sorted(f"{point.value} {point.dist.version if point.dist else ''}" for point in points)
    return f"{__version__} {root} {len(times)} {max(times)} {packages}"
