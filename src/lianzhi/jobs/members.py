"""The members of a folder that holds a model: which are written beside the weights, and copies of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lianzhi import artifact, codebook, files
from lianzhi.errors import RecipeError

WEIGHTS = ("architecture.json", "model.safetensors")
BESIDE = ("preprocess.json", "labels.txt", "tokenizer")  # what a predict.py reads


def copied(source: Path, folder: Path, names: tuple[str, ...]) -> list[str]:
    """Copy those of the members that are there; return their names."""
    done = []
    for name in names:
        member = files.member(source, name)
        if member.is_dir():
            shutil.copytree(member, folder / name)
        elif member.is_file():
            shutil.copyfile(member, folder / name)
        else:
            continue
        done.append(name)
    return done


def unpacked(file: Path, folder: Path) -> list[str]:
    """Write the weights and the architecture of a packed file as the members that they are; return their names."""
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as place:
        inputs = codebook.example_inputs(file)
        saved = artifact.save(codebook.load(file), Path(place) / "model", example_inputs=inputs)
        return copied(saved, folder, WEIGHTS)


def require_elsewhere(output: str | Path, holder: Path) -> None:
    """Refuse to write over the folder that holds what is read."""
    if Path(output).exists() and Path(output).resolve() == holder.resolve():
        raise RecipeError(f"-o {output}: the model itself lies there; give another folder")
