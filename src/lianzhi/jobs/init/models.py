"""Which model: what lies in the current folder, or what `--model` names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lianzhi import files, models
from lianzhi.errors import LianzhiError, RecipeError, did_you_mean
from lianzhi.jobs.init.places import entries
from lianzhi.jobs.init.python_files import Maker, makers, named

FILE, ZOO, ARTIFACT, HUGGINGFACE, ONNX = "file", "zoo", "artifact", "huggingface", "onnx"
PACKAGE, HUB = "package:", re.compile(r"[\w.\-]+/[\w.\-]+")
NO_MODELS = ("setup.py", "conftest.py", "predict.py", "run_in_oneflow.py", "__init__.py")


@dataclass(frozen=True)
class ModelChoice:
    """A model: of which kind, how `--model` names it, the keys under a recipe's `model`, what it is in words.

    `classes` is how many a trained classifier of transformers says; None for a model without such a head.
    """

    kind: str
    flag: str
    keys: dict[str, Any]
    what: str
    maker: Maker = field(default_factory=lambda: Maker(""))
    classes: int | None = None


def look(folder: Path, complaints: list[str]) -> list[ModelChoice]:
    """The models in a folder and one folder below; artifacts of earlier runs in `out/` only if there is nothing else.

    What could not be read is added to `complaints`.
    """
    found = [choice for entry in entries(folder) for choice in _in(entry, complaints)]
    if not found and (folder / "out").is_dir():
        found = [
            choice
            for entry in entries(folder / "out")
            for choice in _in(entry, complaints)
            if choice.kind == ARTIFACT
        ]
    return found


def _in(entry: Path, complaints: list[str]) -> list[ModelChoice]:
    """The models that a file or folder holds."""
    whole = _folder(entry) if entry.is_dir() else None
    if whole is not None:
        return [whole]
    if entry.suffix == ".onnx":
        return [_onnx(entry)]
    if entry.suffix != ".py" or entry.name in NO_MODELS or entry.name.startswith("test_"):
        return []
    try:
        return [_python(entry, maker) for maker in makers(entry)]
    except LianzhiError as error:  # perhaps not the model; said if there is no other
        complaints.append(str(error))
        return []


def resolve(text: str) -> list[ModelChoice]:
    """What `--model` names; several where it is a Python file with several.

    Raises:
        RecipeError: there is no such model.
    """
    path = files.expanded(text)
    file, colon, name = text.rpartition(":")
    if colon and file.endswith(".py"):
        return [_python(_existing(file), named(_existing(file), name))]
    if path.suffix == ".py":
        found = [_python(path, maker) for maker in makers(_existing(text))]
        if not found:
            raise RecipeError(
                f"--model {text}: nothing in it derives from torch.nn.Module or returns one; name the function or class: "
                f"--model {text}:NAME"
            )
        return found
    if path.is_dir():
        whole = _folder(path)
        if whole is None:
            raise RecipeError(
                f"--model {text}: neither an artifact (architecture.json) nor a Hugging Face model (config.json)"
            )
        return [whole]
    if path.suffix == ".onnx":
        return [_onnx(_existing(text))]
    if text.startswith(PACKAGE):
        return [_huggingface(text, files.find_folder(text, []))]
    if HUB.fullmatch(text) and not path.exists():
        return [
            ModelChoice(
                HUGGINGFACE, text, {"name": "huggingface", "path": text}, f"{text} of the Hugging Face hub"
            )
        ]
    if path.suffix in (".safetensors", ".pt", ".pth", ".bin"):
        raise RecipeError(
            f"--model {text}: these are weights alone; name the model that they are of, and give them as --weights {text}"
        )
    known = models.registry.names()
    if text not in known:
        raise RecipeError(
            f"--model {text}: no such file or folder (a class or function of yours is FILE.py:NAME), and no model of the "
            f"zoo{did_you_mean(text, known)}"
        )
    return [ModelChoice(ZOO, text, {"name": text}, f"{text} of the zoo")]


def _existing(text: str) -> Path:
    path = files.expanded(text)
    if not path.is_file():
        raise RecipeError(f"--model {text}: no such file")
    return path


def _python(file: Path, maker: Maker) -> ModelChoice:
    keys = {"file": os.fspath(file), "name": maker.name}
    return ModelChoice(FILE, f"{file}:{maker.name}", keys, f"{maker.name} in {file}", maker)


def _onnx(file: Path) -> ModelChoice:
    return ModelChoice(ONNX, os.fspath(file), {}, f"the ONNX file {file}")


def _folder(folder: Path) -> ModelChoice | None:
    """An artifact, or a model as transformers saves it."""
    if (folder / "architecture.json").is_file():
        return ModelChoice(
            ARTIFACT, os.fspath(folder), {"artifact": os.fspath(folder)}, f"the artifact {folder}"
        )
    if _config(folder) is None:
        return None
    return _huggingface(os.fspath(folder), folder)


def _huggingface(flag: str, folder: Path) -> ModelChoice:
    config = _config(folder)
    if config is None:
        raise RecipeError(f"--model {flag}: holds no Hugging Face model (config.json with its model_type)")
    what = f"the Hugging Face model ({config['model_type']!s:.40}) in {flag}"
    return ModelChoice(
        HUGGINGFACE, flag, {"name": "huggingface", "path": flag}, what, classes=_classes(config)
    )


def _config(folder: Path) -> dict[str, Any] | None:
    """The config of a model of transformers."""
    file = folder / "config.json"
    try:
        config = files.read_json(file) if file.is_file() else None
    except LianzhiError:
        return None
    return config if isinstance(config, dict) and "model_type" in config else None


def _classes(config: dict[str, Any]) -> int | None:
    """How many classes a model of transformers says, by its config, if it is a classifier."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not str(architectures[:1]).endswith(
        "ForSequenceClassification']"
    ):
        return None
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) else 2
