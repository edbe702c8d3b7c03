"""Images of a user's own: choose their size and colours, check them, keep them in memory or decode them later."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lianzhi.tasks import cache, hashing
from lianzhi.tasks.part import Part
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.readable import readable
from lianzhi.tasks.readers.decode import decode_all, from_bytes
from lianzhi.tasks.stores import EncodedStore, PixelStore
from lianzhi.tasks.waiting import waiting

SMALL = 64  # pixels: images up to this size are kept in memory
LARGE_SIZE = 224
CHECKED = 20_000  # images a part that are looked at before anything begins


@dataclass(frozen=True)
class Encoded:
    """Encoded images of one part: the bytes and the place of each row, and the labels."""

    read: Callable[[int], bytes]
    where: Callable[[int], str]
    labels: NDArray[np.int64]
    digest: str
    name: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Frame:
    """The size and colours that images get; `exact`: they have that size already, and it is checked."""

    size: tuple[int, int]
    channels: int
    resize: int | None
    crop: tuple[int, int] | None
    exact: bool

    @property
    def small(self) -> bool:
        return max(self.size) <= SMALL

    @property
    def plain(self) -> Preprocess:
        """The frame without normalisation."""
        return Preprocess(
            self.size, self.channels, (0.0,) * self.channels, (1.0,) * self.channels, self.resize, self.crop
        )


def choose_frame(first: Encoded, size: int | tuple[int, int] | None, channels: int | None) -> Frame:
    """The frame as told; else small images keep the size of the first one, and large ones become 224×224.

    Large images are scaled to 8/7 of the size (256 for 224) on their short side, and the centre is cut out.
    """
    with readable(first.where, 0), from_bytes(first.read)(0) as image:
        found, mode = (image.height, image.width), image.mode
    channels = channels or (1 if mode in ("1", "L", "LA", "I;16", "I", "F") else 3)
    if size is None and max(found) <= SMALL:
        return Frame(found, channels, None, None, exact=True)
    side = LARGE_SIZE if size is None else size
    wanted = (side, side) if isinstance(side, int) else side
    if wanted[0] != wanted[1]:
        return Frame(wanted, channels, None, None, exact=False)
    resize = wanted[0] if wanted[0] <= SMALL else round(wanted[0] * 256 / 224)
    return Frame(wanted, channels, resize, wanted, exact=False)


def part_of(images: Encoded, frame: Frame) -> Part:
    """Small images decoded into memory and cached; large ones checked, and decoded when they are needed."""
    if frame.small:
        key = hashing.digest(images.digest, repr(frame), "1")

        def make() -> NDArray[np.uint8]:
            with waiting(f"decoding {len(images):,} images"):
                return decode_all(
                    len(images),
                    from_bytes(images.read),
                    images.where,
                    size=frame.size,
                    channels=frame.channels,
                    scale=None if frame.exact else frame.plain,
                )

        return Part(
            PixelStore(cache.array(key, make), images.digest), images.labels, images.name, images.where
        )
    check_images(images)
    store = EncodedStore(len(images), from_bytes(images.read), images.where, images.digest)
    return Part(store, images.labels, images.name, images.where)


def check_images(images: Encoded) -> None:
    """Look at each image (of very many, at 20,000) once, so that a damaged one is found before training."""
    marker = cache.folder() / "checked" / images.digest
    if marker.is_file():
        return
    rows = range(0, len(images), max(1, len(images) // CHECKED))
    with waiting(f"checking {len(rows):,} images"), ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda row: _check(images, row), rows):
            pass
    with suppress(OSError):
        cache.write(marker, lambda stream: stream.write(b"whole\n"))


def _check(images: Encoded, row: int) -> None:
    """Read the header; where the end of a JPEG or PNG is missing, decode it all to be sure."""
    with readable(images.where, row):
        data = images.read(row)
        with from_bytes(images.read)(row) as image:
            end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(image.format or "")
            if end is not None and end not in data[-64:]:
                image.load()
