"""Decode many small images of one size into one array."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks.preprocess import Preprocess, colours, planes
from lianzhi.tasks.readable import readable


def decode_all(
    count: int,
    open_image: Callable[[int], Any],
    where: Callable[[int], str],
    *,
    size: tuple[int, int],
    channels: int,
    scale: Preprocess | None = None,
) -> NDArray[np.uint8]:
    """Return uint8 images of shape (count, channels, height, width).

    Threads would not help: an image of this size spends its time in Python, not in the decoder.

    Raises:
        DataError: an image cannot be read, or is not of the size; with `scale`, every image is made so.
    """
    pixels = np.empty((count, channels, *size), np.uint8)
    for row in range(count):
        pixels[row] = decode(open_image, row, where, size=size, channels=channels, scale=scale)
    return pixels


def decode(
    open_image: Callable[[int], Any],
    row: int,
    where: Callable[[int], str],
    *,
    size: tuple[int, int],
    channels: int,
    scale: Preprocess | None = None,
) -> NDArray[np.uint8]:
    """One image, checked: (channels, height, width)."""
    with readable(where, row), open_image(row) as image:
        if scale is not None:
            return scale.pixels(image)
        if (image.height, image.width) == size:
            return planes(colours(image, channels))
        found = f"{image.height}x{image.width}"
    raise DataError(
        f"{where(row)}: the image is {found}, and {size[0]}x{size[1]} is expected (height x width); "
        f"replace it, or scale all images with the option 'size' where the task has it"
    )


def from_bytes(read: Callable[[int], bytes]) -> Callable[[int], Any]:
    """A function that opens the image of a row from its bytes, without decoding it yet."""
    from PIL import Image

    return lambda row: Image.open(io.BytesIO(read(row)))
