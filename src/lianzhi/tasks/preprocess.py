"""From an image to what the model takes: colours, resize, crop, scale, normalise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError

LONGEST_SIDE = 8192


@dataclass(frozen=True)
class Preprocess:
    """How an image of any size becomes a batch of one: ``(x / 255 - mean) / std``.

    `size` is (height, width). `resize` is the short side to which an image is scaled first, and `crop` the
    (height, width) cut from its centre; an image that still has another size is scaled to `size`. It is
    saved as ``preprocess.json`` beside a model.

    >>> grey = Preprocess(size=(2, 2), channels=1, mean=(0.5,), std=(0.5,))
    >>> grey(np.full((2, 2), 255, np.uint8)).tolist()
    [[[[1.0, 1.0], [1.0, 1.0]]]]
    >>> Preprocess.from_dict(grey.to_dict()) == grey
    True
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sides = [*self.size, *(self.crop or ()), *([] if self.resize is None else [self.resize])]
        if not all(1 <= side <= LONGEST_SIDE for side in sides):
            raise DataError(
                f"size {self.size}, resize {self.resize}, crop {self.crop}: a side has 1 to {LONGEST_SIDE:,} pixels"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels:
                raise DataError(
                    f"'{name}' has {len(values)} values and the images have {self.channels} channels; "
                    f"give one value a channel"
                )
            if not np.isfinite(values).all():
                raise DataError(f"'{name}' is {list(values)}; give finite numbers")
        if min(self.std) <= 0:
            raise DataError(f"'std' is {list(self.std)}; every value must be above 0 (all images are alike?)")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`.

        Raises:
            DataError: something is missing, unknown, or of another kind than `to_dict` writes.
        """
        try:
            unknown = set(values) - {field.name for field in fields(cls)}
            if unknown:
                raise ValueError(f"unknown {', '.join(sorted(map(str, unknown)))}")
            resize, crop = values.get("resize"), values.get("crop")
            return cls(
                size=_pair(values["size"]),
                channels=int(values["channels"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
                resize=None if resize is None else int(resize),
                crop=None if crop is None else _pair(crop),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"not a description of preprocessing ({error}); it needs size, channels, mean and std"
            ) from None

    def __call__(self, image: Any) -> NDArray[np.float32]:
        """Return an image (PIL, or a uint8 array in HW or HWC) as float32 of shape (1, C, height, width)."""
        return self.normalize(self.pixels(image)[None])

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        """The image in the right colours and size, as uint8 of shape (C, height, width)."""
        from PIL import Image

        if isinstance(image, np.ndarray):
            image = _from_array(image)
        image = colours(image, self.channels)
        if self.resize is not None:
            image = resize_short_side(image, self.resize)
        if self.crop is not None:
            image = centre_crop(image, self.crop)
        if (image.height, image.width) != self.size:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return planes(image)

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 of shape (batch, C, height, width) to float32 ``(x / 255 - mean) / std``."""
        values = pixels.astype(np.float32)
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32)[:, None, None]
        values /= np.asarray(self.std, np.float32)[:, None, None]
        return values


def colours(image: Any, channels: int) -> Any:
    """The image as greyscale (1 channel), RGB (3) or RGBA (4)."""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise DataError(f"an image cannot be given {channels} channels; known are 1, 3 and 4")
    return image if image.mode == modes[channels] else image.convert(modes[channels])


def resize_short_side(image: Any, length: int) -> Any:
    """Scale the image, keeping its proportions, so that its short side has `length` pixels."""
    from PIL import Image

    factor = length / min(image.size)
    size = tuple(max(length, round(side * factor)) for side in image.size)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def centre_crop(image: Any, size: tuple[int, int]) -> Any:
    """Cut (height, width) from the middle; a smaller image is filled up with black."""
    left, top = (image.width - size[1]) // 2, (image.height - size[0]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


def planes(image: Any) -> NDArray[np.uint8]:
    """A PIL image as uint8 of shape (C, height, width)."""
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _pair(value: Any) -> tuple[int, int]:
    height, width = (int(side) for side in value)
    return height, width


def _from_array(array: NDArray[Any]) -> Any:
    from PIL import Image

    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
    ):
        raise DataError(
            f"an image array must be uint8 of shape (height, width) or (height, width, channels), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
