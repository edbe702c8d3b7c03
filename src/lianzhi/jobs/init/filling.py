"""What the data decides of the model, and a model's own size of the data: numbers of classes, channels, pixels, tokens."""

from __future__ import annotations

from typing import Any

from lianzhi import models
from lianzhi.errors import RecipeError
from lianzhi.jobs.init.missing import Ask, Missing, answer
from lianzhi.jobs.init.models import ARTIFACT, FILE, HUGGINGFACE, ZOO, ModelChoice
from lianzhi.models.options import ModelConfig
from lianzhi.tasks import Task, TextPreprocess
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.preprocess import Preprocess

CLASSES = ("num_classes", "n_classes", "nb_classes", "classes", "num_labels", "n_labels")
CHANNELS = ("in_channels", "in_chans", "input_channels", "channels")
SIZES = ("image_size", "img_size", "input_size")
TOKENS = ("vocab_size", "vocabulary_size", "num_tokens", "n_tokens")


def own_size(model: ModelChoice, config: type | None) -> int | None:
    """The side of the images that a model of a Python file has by default, where the task can scale images to it."""
    if model.kind != FILE or config is None or not issubclass(config, OwnImageOptions):
        return None
    values = [model.maker.parameters[name] for name in SIZES if name in model.maker.parameters]
    return next((value for value in values if type(value) is int and value > 0), None)


def fill(model: ModelChoice, task: Task, told: dict[str, Any], ask: Ask | None) -> dict[str, Any]:
    """The model's keys with what the data says; `told` are keys that the user gave, which win.

    Raises:
        RecipeError: the model takes images and the data are texts or the other way round, or a parameter has no default.
    """
    keys = dict(model.keys)
    text = isinstance(task.preprocess, TextPreprocess)
    if model.kind == ARTIFACT:
        return keys
    if model.kind == HUGGINGFACE:
        _require(text, model, "texts")
        return {**keys, "num_classes": task.num_classes}
    if model.kind == ZOO:
        return _zoo(model, keys, task, text)
    facts = _facts(task)
    for name, default in model.maker.parameters.items():
        value = facts.get(name)
        if value is not None and (value != default or name in CLASSES):
            keys[name] = value
    if model.maker.takes_any and not set(CLASSES) & set(model.maker.parameters):
        keys["num_classes"] = task.num_classes
    for name in model.maker.required:
        if name not in keys and name not in told:
            question = Missing(
                f"--set model.{name}=VALUE", f"{model.flag} takes '{name}', which has no default."
            )
            keys[name] = _number(answer(question, ask))
    return keys


def _zoo(model: ModelChoice, keys: dict[str, Any], task: Task, text: bool) -> dict[str, Any]:
    config = models.registry.get(keys["name"]).config
    images = config is not None and issubclass(config, ModelConfig)
    _require(text != images, model, "images" if images else "texts")
    keys["num_classes"] = task.num_classes
    if images and config is not None and isinstance(task.preprocess, Preprocess):
        height, width = task.preprocess.size
        known = {"in_channels": task.preprocess.channels, "image_size": height if height == width else None}
        fields = config.model_fields
        keys |= {name: value for name, value in known.items() if value not in (None, fields[name].default)}
    return keys


def _facts(task: Task) -> dict[str, Any]:
    """What a parameter of a usual name is to be."""
    found: dict[str, Any] = dict.fromkeys(CLASSES, task.num_classes)
    if isinstance(task.preprocess, Preprocess):
        found |= dict.fromkeys(CHANNELS, task.preprocess.channels)
        if task.preprocess.size[0] == task.preprocess.size[1]:
            found |= dict.fromkeys(SIZES, task.preprocess.size[0])
    if isinstance(task.preprocess, TextPreprocess):
        found |= dict.fromkeys(TOKENS, len(task.preprocess.vocabulary))
    return found


def _require(fits: bool, model: ModelChoice, takes: str) -> None:
    if not fits:
        other = (
            "--model bilstm, or the folder of a Hugging Face model"
            if takes == "images"
            else "a model of images, such as --model resnet20"
        )
        raise RecipeError(f"{model.what} takes {takes}, and the data is something else; give {other}")


def _number(text: str) -> Any:
    """A number, if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
