"""Which weights: the file beside the model, or what `--weights` names."""

from __future__ import annotations

import os
from pathlib import Path

from lianzhi import models
from lianzhi.errors import ArtifactError
from lianzhi.jobs.init.missing import Ask, Missing, answer
from lianzhi.jobs.init.models import FILE, ZOO, ModelChoice

ENDINGS = (".safetensors", ".pt", ".pth")
NONE = "none"


def choose(model: ModelChoice, told: str | None, ask: Ask | None) -> str | None:
    """The weights of a model of a Python file or of the zoo; None where it begins untrained.

    Of several files beside the model that of the model's own name is taken. The file is read, so that one that holds more
    than tensors is refused here.

    Raises:
        ArtifactError: the file is missing, damaged, or would run code.
        RecipeError: there are several, and nobody says which.
    """
    if told == NONE or model.kind not in (FILE, ZOO):
        return None
    chosen = told if told is not None else _beside(model, ask)
    if chosen is None:
        return None
    try:
        models.read_weights(chosen)
    except ArtifactError as error:
        raise ArtifactError(f"--weights {chosen}: {error}; or begin untrained: --weights none") from None
    return chosen


def _beside(model: ModelChoice, ask: Ask | None) -> str | None:
    folder = Path(model.keys["file"]).parent if model.kind == FILE else Path()
    found = [file for place in (folder, folder / "weights", folder / "checkpoints") for file in _files(place)]
    names = {Path(model.keys.get("file", "")).stem, model.keys["name"]}
    own = [file for file in found if file.stem.lower() in {name.lower() for name in names}]
    if model.kind == ZOO or len(own) == 1:
        return os.fspath(own[0]) if len(own) == 1 else None
    candidates = own or found
    if not candidates:
        return None
    if len(candidates) == 1 and ask is None:
        return os.fspath(candidates[0])
    choices = [
        *((os.fspath(file), "") for file in candidates),
        (NONE, "it begins untrained, and is trained first"),
    ]
    found_one = answer(
        Missing("--weights", f"Which are the trained weights of {model.what}?", tuple(choices)), ask
    )
    return None if found_one == NONE else found_one


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix in ENDINGS and file.is_file())
