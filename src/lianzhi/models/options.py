"""What every model's config has: the number of classes, and the image that goes in.

The bounds keep a config that somebody else wrote from asking for a model that fills the memory.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lianzhi.config import Config

Width = Annotated[int, Field(ge=1, le=1 << 16)]
Depth = Annotated[int, Field(ge=1, le=256)]
Share = Annotated[float, Field(ge=0, lt=1)]
Hidden = Annotated[tuple[Width, ...], Field(max_length=64)]


class ModelConfig(Config):
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
