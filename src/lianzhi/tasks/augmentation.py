"""Random crop and flip of whole batches, drawn from a sample's number.

Images in memory are filled up with black by `padding` pixels, cropped back to their size at a random place,
and half of them mirrored (He et al. 2016, section 4.2). Larger images are cropped to a random share of
their area, at a random place and in a random aspect, and scaled (Szegedy et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lianzhi.tasks import hashing

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """What is drawn: padding in pixels, mirroring, and for large images the least share of the area kept."""

    padding: int = 4
    flip: bool = True
    min_area: float = 0.08


@dataclass(frozen=True)
class Draw:
    """An augmentation in one epoch of a run."""

    how: Augmentation
    seed: int
    epoch: int

    def _key(self, purpose: str) -> np.uint64:
        return hashing.key(self.seed, self.epoch, purpose)

    def flips(self, ids: Ids) -> NDArray[np.bool_]:
        """Which samples are mirrored."""
        if not self.how.flip:
            return np.zeros(len(ids), bool)
        return hashing.uniform(self._key("flip"), ids) < 0.5

    def shifts(self, ids: Ids) -> tuple[Ids, Ids]:
        """Where in its padded image each sample is cropped: (top, left)."""
        places = 2 * self.how.padding + 1
        return (
            hashing.integers(self._key("top"), ids, places),
            hashing.integers(self._key("left"), ids, places),
        )

    def boxes(self, ids: Ids, heights: Ids, widths: Ids) -> NDArray[np.float64]:
        """For each image of a size, the (left, top, right, bottom) that is cut and scaled.

        Its area is a share of the square on the image's short side, uniform in [min_area, 1]; its aspect is
        log-uniform in [3/4, 4/3]; it is clipped to the image.
        """
        area = self.how.min_area + (1 - self.how.min_area) * hashing.uniform(self._key("area"), ids)
        aspect = (3 / 4) ** (1 - 2 * hashing.uniform(self._key("aspect"), ids))
        short = np.minimum(heights, widths)
        side = short * np.sqrt(area)
        width = np.clip(np.round(side * np.sqrt(aspect)), 1, widths)
        height = np.clip(np.round(side / np.sqrt(aspect)), 1, heights)
        left = np.floor(hashing.uniform(self._key("left"), ids) * (widths - width + 1))
        top = np.floor(hashing.uniform(self._key("top"), ids) * (heights - height + 1))
        return np.stack([left, top, left + width, top + height], axis=1)


def augment(images: NDArray[np.uint8], ids: Ids, draw: Draw) -> NDArray[np.uint8]:
    """Crop with padding and mirror; images of shape (batch, C, H, W), the same shape comes back.

    >>> image = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    >>> draw = Draw(Augmentation(padding=0, flip=False), seed=0, epoch=0)
    >>> bool((augment(image, np.array([7]), draw) == image).all())
    True
    """
    pad = draw.how.padding
    if pad and len(images):
        height, width = images.shape[2:]
        padded = np.zeros((*images.shape[:2], height + 2 * pad, width + 2 * pad), np.uint8)
        padded[:, :, pad : pad + height, pad : pad + width] = images
        top, left = draw.shifts(ids)
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))  # (batch, C, top, left, H, W)
        images = windows[np.arange(len(ids)), :, top, left]
    flips = draw.flips(ids)
    if flips.any():
        images = images.copy() if not pad else images
        images[flips] = images[flips, :, :, ::-1]
    return images
