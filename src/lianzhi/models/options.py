"""What every model's config has: the number of classes, and the image that goes in.

The bounds keep a config that somebody else wrote from asking for a model that fills the memory.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import nn

from lianzhi.config import Config
from lianzhi.errors import ArtifactError
from lianzhi.models.weights import PathLike, load_weights

Width = Annotated[int, Field(ge=1, le=1 << 16)]
Depth = Annotated[int, Field(ge=1, le=256)]
Share = Annotated[float, Field(ge=0, lt=1)]
Hidden = Annotated[tuple[Width, ...], Field(max_length=64)]


MAX_INTEGER = 1 << 24
MAX_STRING = 100


class ZooConfig(Config):
    """What the config of every model of the zoo has."""

    @classmethod
    def check_saved(cls, name: str, config: dict[str, Any]) -> None:
        """Raise `ArtifactError` for a config that no saved model has: only numbers, short strings, lists of them."""
        if "weights" in config:
            raise ArtifactError(f"'{name}' has a config that no saved model has")
        for key, value in config.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                check_plain(name, key, item)

    @classmethod
    def load_into(cls, module: nn.Module, weights: PathLike) -> None:
        """Fill a model with the weights in a file or checkpoint, which must have its names and shapes."""
        load_weights(module, weights)

    @classmethod
    def current(cls, module: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
        """The config of a model as it is now: the one that it was made from, unless the model keeps one in step."""
        return config


def check_plain(name: str, key: str, value: Any) -> None:
    """Raise `ArtifactError` unless a saved option is a number, a bool, a short string or null."""
    plain = value is None or type(value) in (bool, int, float, str)
    long = isinstance(value, str) and len(value) > MAX_STRING
    if not plain or long or (type(value) is int and abs(value) > MAX_INTEGER):
        raise ArtifactError(f"'{name}' has the config {key!r:.40}: {value!r:.80}, which no saved model has")


class TextModelConfig(ZooConfig):
    """Options of a model that takes tokens and gives logits."""

    num_classes: int | None = Field(
        default=None, ge=1, le=1 << 20, description="default: as the model's own config says"
    )


class WordModelConfig(TextModelConfig):
    """Options of a model that takes the words of a vocabulary, and may begin with their vectors."""

    vocabulary: Annotated[int, Field(ge=1, le=1 << 22)] | tuple[str, ...] = Field(
        default=10_000,
        description="the words in the order of their ids, or how many there are; of a recipe: the task's",
    )
    vectors: str | None = Field(
        default=None,
        description="word vectors to begin with: package:NAME/folder, a folder, or a .txt or .npz file",
    )
    pairs: bool = Field(
        default=False,
        description="read two texts, told apart by token_type_ids; of a recipe: as the task has them",
    )

    @classmethod
    def check_saved(cls, name: str, config: dict[str, Any]) -> None:
        """A saved model says how many words it has, and neither which nor where their vectors came from."""
        super().check_saved(name, config)
        if config.get("vectors") is not None or type(config.get("vocabulary")) is not int:
            raise ArtifactError(f"'{name}' has a config that no saved model has")


class ModelConfig(ZooConfig):
    """Options of a model that takes square images and gives logits.

    >>> ModelConfig(image_size=64).input_shape
    (3, 64, 64)
    """

    num_classes: int = Field(default=10, ge=1, le=1 << 20)
    in_channels: Width = 3
    image_size: int = Field(default=32, ge=1, le=1 << 13)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.in_channels, self.image_size, self.image_size)
