"""The models by name."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.models.options import ModelConfig, WordModelConfig, ZooConfig
from lianzhi.registry import Registry

registry = Registry("models", "model")


def model(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    **config: Any,
) -> nn.Module:
    """Make a model by name, in training mode; `config` holds the options of its config class.

    >>> small = model("resnet20", num_classes=100)
    >>> sum(weight.numel() for weight in small.parameters())
    275572
    >>> model("resnet_20")
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: unknown model 'resnet_20'; did you mean 'resnet20'?

    Without `weights` they are drawn from PyTorch's generator. `weights` is a `.safetensors` file, or a `.pt`
    or `.pth` file with a state dict, of which only tensors are read; the folder of a OneFlow checkpoint; or the prefix of a
    TensorFlow checkpoint's files.

    Raises:
        RecipeError: there is no such model, or it has no such option.
        ArtifactError: the weights are missing, damaged, or not those of this model.
    """
    entry = registry.get(name)
    if entry.config is None or not issubclass(entry.config, ZooConfig):
        raise RecipeError(f"model '{name}' was registered without a config class; register it with config=")
    options = config if num_classes is None else {**config, "num_classes": num_classes}
    settings = entry.config(**options)
    module: nn.Module = entry.build(settings)
    if "zoo" not in vars(module):  # a model that came from files has put down what it turned out to be
        module.zoo = {"name": name, "config": settings.to_dict()}  # type: ignore[assignment]
    if weights is not None:
        entry.config.load_into(module, weights)
    return module


def word_options(name: str, vocabulary: Sequence[str], *, pairs: bool) -> dict[str, Any]:
    """What a model over words takes from the data that it reads; nothing for any other model.

    >>> word_options("bilstm", ("[PAD]", "[UNK]", "good"), pairs=False)
    {'vocabulary': ('[PAD]', '[UNK]', 'good'), 'pairs': False}
    >>> word_options("resnet20", (), pairs=False)
    {}
    """
    config = registry.get(name).config
    if config is None or not issubclass(config, WordModelConfig):
        return {}
    return {"vocabulary": tuple(vocabulary), "pairs": pairs}


def describe(module: nn.Module) -> dict[str, Any] | None:
    """Name and config of a model that the zoo made, with every default filled in; None for any other.

    A config that follows the model, as those of transformers do, is the one of the model as it is now.

    >>> describe(model("lenet_300_100"))
    {'name': 'lenet_300_100', 'config': {'num_classes': 10, 'in_channels': 1, 'image_size': 28}}
    >>> describe(nn.Linear(2, 2)) is None
    True
    """
    zoo = vars(module).get("zoo")
    if not isinstance(zoo, dict) or zoo.keys() != {"name", "config"}:
        return None
    found = copy.deepcopy(zoo)
    cls = registry.get(found["name"]).config
    if cls is not None and issubclass(cls, ZooConfig):
        found["config"] = cls.current(module, found["config"])
    return found


def remarks(module: nn.Module) -> tuple[str, ...]:
    """What the user should know of how a model came to be, such as weights that its files did not have.

    >>> remarks(model("lenet5"))
    ()
    """
    found = vars(module).get("zoo_remarks")
    return tuple(found["remarks"]) if isinstance(found, dict) else ()


def check_saved(name: str, config: Any) -> None:
    """Raise `ArtifactError` unless a saved name and config are such as `describe` gives."""
    if not isinstance(config, dict):
        raise ArtifactError(f"'{name}' has a config that no saved model has")
    cls = registry.get(name).config
    if cls is None or not issubclass(cls, ZooConfig):
        raise ArtifactError(f"'{name}' is no model that can be saved")
    cls.check_saved(name, config)


def input_shape(module: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of the image that a model of the zoo was made for.

    >>> input_shape(model("resnet20"))
    (3, 32, 32)
    """
    found = describe(module)
    if found is None:
        raise RecipeError(
            f"a {type(module).__name__} is not a model of the zoo, and has no input shape of its own; "
            f"give example inputs"
        )
    config = registry.get(found["name"]).config
    if config is None or not issubclass(config, ModelConfig):
        raise RecipeError(f"model '{found['name']}' takes no images; give example inputs")
    return config(**found["config"]).input_shape
