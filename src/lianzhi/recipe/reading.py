"""From a YAML file, or raw data, to a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lianzhi import files
from lianzhi.config import Config, explain
from lianzhi.errors import ArtifactError, RecipeError, did_you_mean
from lianzhi.recipe.raw import expand, override
from lianzhi.recipe.steps import Quantize
from lianzhi.recipe.whole import Recipe

MOST_BYTES = 1 << 20


def parse(data: Any, *, where: str = "recipe") -> Recipe:
    """Validate raw recipe data."""
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: a recipe is a mapping with model, task and steps")
    try:
        return Recipe.model_validate(expand(data))
    except ValidationError as error:
        raise RecipeError(f"{where}: {explain(Recipe, error)}") from None
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def load(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe, apply `overrides` (``KEY=VALUE``), and validate it."""
    file = Path(path)
    if not file.exists():
        raise RecipeError(f"{file}: no such recipe file{_ready_recipes(file)}")
    try:
        text = files.read_text(file, MOST_BYTES)
    except ArtifactError as error:
        raise RecipeError(f"{error}; give the path of a YAML recipe") from None
    data = files.parse_yaml(text, str(file))
    if not isinstance(data, dict):
        raise RecipeError(f"{file}: a recipe is a mapping with model, task and steps")
    for assignment in overrides:
        override(data, assignment)
    return _beside(file, parse(data, where=str(file)))


def _beside(file: Path, recipe: Recipe) -> Recipe:
    """The recipe with its calibration tables where they are: their paths are relative to the recipe's own folder."""

    def moved(step: Config) -> Config:
        if not isinstance(step, Quantize) or step.calibration_table is None:
            return step
        return step.model_copy(
            update={"calibration_table": os.path.abspath(file.parent / step.calibration_table)}
        )

    return recipe.model_copy(update={"steps": tuple(moved(step) for step in recipe.steps)})


def _ready_recipes(file: Path) -> str:
    folder = file.parent
    known = sorted(str(item) for item in folder.glob("*.yaml")) if folder.is_dir() else []
    return did_you_mean(str(file), known) if known else ""
