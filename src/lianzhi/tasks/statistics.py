"""Mean and standard deviation of the pixels of a training part, per channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.stores import EncodedStore, PixelStore, Request, Store

SAMPLED = 2048


def pixel_statistics(
    store: Store,
    rows: NDArray[np.int64],
    size: tuple[int, int],
    channels: int,
    like: Preprocess | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of pixels in 0–1; of images that are decoded when needed, from 2,048 of them.

    >>> pixels = np.stack([np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255, np.uint8)])
    >>> pixel_statistics(PixelStore(pixels, ""), np.array([0, 1]), (2, 2), 1)
    ((0.5,), (0.5,))
    """
    counts = np.zeros((channels, 256), np.int64)
    if isinstance(store, EncodedStore):
        rows = rows[:: max(1, len(rows) // SAMPLED)][:SAMPLED]
    for start in range(0, len(rows), 1024):
        chunk = rows[start : start + 1024]
        if isinstance(store, PixelStore):
            pixels = store.pixels[chunk]
        else:
            plain = like or Preprocess(size, channels, (0.0,) * channels, (1.0,) * channels)
            values = next(iter(store.stream([Request(chunk, chunk, None)], plain)))
            pixels = np.round(values * 255).astype(np.uint8)
        for channel in range(channels):
            counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    total = counts.sum(1)
    mean = (counts @ levels) / total
    std = np.sqrt(np.maximum((counts @ levels**2) / total - mean**2, 0))
    if std.min() <= 0:
        raise DataError(
            f"channel {int(std.argmin())} of all training images is one constant; look at the images, or give mean and std"
        )
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)
