"""What lies where a recipe names a teacher or a student: a run that is resumed has the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.pipeline.state import ORIGINAL
from lianzhi.recipe import Recipe
from lianzhi.tasks.cache import digest_files

# of steps, their students and methods' options
KEYS = frozenset({"teacher", "masked_lm", "artifact", "weights", "file", "path"})
PATTERNS = ("*.safetensors", "*.lzc", "*.json", "tokenizer/*.json")
LEFT = "report.json"  # is written anew by a measurement


def teachers_of(recipe: Recipe) -> dict[str, str]:
    """A digest of the weights, the architecture and the tokenizer of each local teacher and student, by the name that the recipe has.

    >>> from lianzhi.recipe import Distill
    >>> teachers_of(Recipe(steps=(Distill(teacher="original"),)))
    {}
    """
    return {name: _digest(files.expanded(name)) for name in dict.fromkeys(_names(recipe.to_dict()["steps"]))}


def _names(value: Any) -> Iterator[str]:
    """The folders and files under the keys, in order."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in KEYS and isinstance(inner, str):
                if inner != ORIGINAL and files.expanded(inner).exists():
                    yield inner
            else:
                yield from _names(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _names(inner)


def _digest(place: Path) -> str:
    if place.is_file():
        return digest_files([place])
    found = {file for pattern in PATTERNS for file in place.glob(pattern) if file.name != LEFT}
    return digest_files(sorted(file for file in found if file.is_file()))
