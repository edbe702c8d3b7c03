"""Where samples come from: images in memory, numbers in memory, or images decoded when they are needed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.tasks.augmentation import Draw, augment
from lianzhi.tasks.preprocess import Preprocess, colours, planes
from lianzhi.tasks.readable import readable

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """Rows of a store to be read as one batch, with the samples' ids and what is drawn for them."""

    rows: Rows
    ids: Rows
    draw: Draw | None


class Store(ABC):
    """Samples by row number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stream(
        self, requests: Iterable[Request], preprocess: Preprocess | None
    ) -> Iterator[NDArray[np.float32]]:
        """Read one float32 array a request, in order."""

    @abstractmethod
    def digest(self) -> str:
        """A short text that changes when the data changes."""


class PixelStore(Store):
    """Small images in memory: uint8 of shape (samples, C, H, W)."""

    def __init__(self, pixels: NDArray[np.uint8], digest: str) -> None:
        self.pixels, self._digest = pixels, digest

    def __len__(self) -> int:
        return len(self.pixels)

    def stream(
        self, requests: Iterable[Request], preprocess: Preprocess | None
    ) -> Iterator[NDArray[np.float32]]:
        assert preprocess is not None
        for request in requests:
            images = self.pixels[request.rows]
            if request.draw is not None:
                images = augment(images, request.ids, request.draw)
            yield preprocess.normalize(images)

    def digest(self) -> str:
        return self._digest


class NumberStore(Store):
    """Numbers in memory: float32 of shape (samples, …), given to the model as they are."""

    def __init__(self, values: NDArray[np.float32], digest: str) -> None:
        self.values, self._digest = values, digest

    def __len__(self) -> int:
        return len(self.values)

    def stream(
        self, requests: Iterable[Request], preprocess: Preprocess | None
    ) -> Iterator[NDArray[np.float32]]:
        for request in requests:
            yield self.values[request.rows]

    def digest(self) -> str:
        return self._digest


class EncodedStore(Store):
    """Images in files, or in a table, decoded by threads a few batches ahead of their use.

    `open_image(row)` gives a PIL image that need not be decoded yet; `where(row)` names it in an error.
    """

    AHEAD = 2

    def __init__(
        self, count: int, open_image: Callable[[int], Any], where: Callable[[int], str], digest: str
    ) -> None:
        self.count, self.open_image, self.where, self._digest = count, open_image, where, digest

    def __len__(self) -> int:
        return self.count

    def stream(
        self, requests: Iterable[Request], preprocess: Preprocess | None
    ) -> Iterator[NDArray[np.float32]]:
        assert preprocess is not None
        waiting: deque[list[Future[NDArray[np.uint8]]]] = deque()
        empty = np.zeros((0, preprocess.channels, *preprocess.size), np.uint8)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                for request in requests:
                    pairs = zip(request.rows, request.ids, strict=True)
                    waiting.append(
                        [
                            pool.submit(self.pixels, int(row), int(i), preprocess, request.draw)
                            for row, i in pairs
                        ]
                    )
                    if len(waiting) > self.AHEAD:
                        yield self._join(waiting.popleft(), empty, preprocess)
                while waiting:
                    yield self._join(waiting.popleft(), empty, preprocess)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def pixels(self, row: int, sample: int, preprocess: Preprocess, draw: Draw | None) -> NDArray[np.uint8]:
        """One image, decoded: (C, height, width)."""
        with readable(self.where, row), self.open_image(row) as image:
            return preprocess.pixels(image) if draw is None else _draw_crop(image, sample, preprocess, draw)

    def digest(self) -> str:
        return self._digest

    @staticmethod
    def _join(
        futures: list[Future[NDArray[np.uint8]]], empty: NDArray[np.uint8], preprocess: Preprocess
    ) -> NDArray[np.float32]:
        images = [future.result() for future in futures]
        return preprocess.normalize(np.stack(images) if images else empty)


def _draw_crop(image: Any, sample: int, preprocess: Preprocess, draw: Draw) -> NDArray[np.uint8]:
    """A random box of the image scaled to the size, mirrored or not."""
    from PIL import Image

    ids = np.array([sample])
    width, height = image.size
    box = draw.boxes(ids, np.array([height]), np.array([width]))[0]
    image = colours(image, preprocess.channels)
    size = preprocess.size[::-1]
    image = image.resize(size, Image.Resampling.BILINEAR, box=tuple(float(side) for side in box))
    pixels = planes(image)
    return np.ascontiguousarray(pixels[:, :, ::-1]) if draw.flips(ids)[0] else pixels
