"""Arrays of a user's own: which are images and which are plain numbers, checked, as parts of a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import hashing
from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts, assemble
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.part import Part, as_labels
from lianzhi.tasks.stores import NumberStore, PixelStore, Store


def open_arrays(
    name: str,
    source: Path,
    arrays: dict[str, tuple[NDArray[Any], NDArray[Any]]],
    options: OwnImageOptions,
    *,
    labels: Sequence[str] | None = None,
) -> Task:
    """Make the task of (samples, labels) by part.

    uint8 of shape (samples, height, width), with 1 or 3 channels last or first, are images: they are
    normalised and augmented. Everything else is given to the model as float32, as it is.
    """
    parts, shapes = {}, {}
    for part, (values, classes) in arrays.items():
        where = f"{source} ({part})"
        samples = as_samples(values, where)
        shapes[part] = (samples.dtype, samples.shape[1:])
        digest = hashing.digest(str(samples.shape), np.ascontiguousarray(samples).tobytes())
        store: Store = (
            PixelStore(samples, digest) if samples.dtype == np.uint8 else NumberStore(samples, digest)
        )
        parts[part] = Part(store, as_labels(classes, where), where)
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{part} {shape[0]} {shape[1]}" for part, shape in shapes.items())
        raise DataError(f"{source}: samples differ between the parts: {found}; make them alike")
    kind, shape = next(iter(shapes.values()))
    images = kind == np.uint8
    if options.size is not None or options.channels is not None:
        _require(options, shape if images else None, source)
    facts = Facts(
        name=name,
        source=str(source),
        labels=labels,
        size=(shape[1], shape[2]) if images else None,
        channels=shape[0] if images else 0,
        min_area=options.min_area,
    )
    if not images and (options.mean is not None or options.std is not None):
        raise DataError(
            f"{source}: samples are plain numbers, and mean and std are for images; leave them out"
        )
    return assemble(parts, facts, options)


def as_samples(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Images as uint8 of shape (samples, channels, height, width), anything else as float32.

    >>> as_samples(np.zeros((5, 8, 8, 3), np.uint8), "x").shape
    (5, 3, 8, 8)
    >>> as_samples(np.zeros((5, 4)), "x").dtype
    dtype('float32')
    """
    if values.ndim < 2 or not values.size:
        raise DataError(
            f"{where}: samples of shape {values.shape}; expected (samples, …) with at least one value each"
        )
    if values.dtype == np.uint8 and values.ndim == 3:
        return values[:, None]
    if values.dtype == np.uint8 and values.ndim == 4:
        if values.shape[3] in (1, 3):
            return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        if values.shape[1] in (1, 3):
            return values
        raise DataError(
            f"{where}: images of shape {values.shape[1:]}; expected 1 or 3 channels, last or first"
        )
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: samples are {values.dtype}; expected numbers")
    numbers = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(numbers).reshape(len(numbers), -1).all(1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        more = int((~finite).sum()) - 1
        others = f" (and {more:,} other rows)" if more else ""
        raise DataError(
            f"{where}, row {row}: NaN or infinite values{others}; mend the data or take the rows out"
        )
    return numbers


def _require(options: OwnImageOptions, shape: tuple[int, ...] | None, source: Path) -> None:
    """Images in arrays are not scaled: a size that is told must be the one they have."""
    if shape is None:
        raise DataError(
            f"{source}: samples are plain numbers, and size and channels are for images; leave them out"
        )
    size = options.size
    wanted = shape[1:] if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if wanted != shape[1:] or options.channels not in (None, shape[0]):
        raise DataError(
            f"{source}: the images are {shape[1]}x{shape[2]} with {shape[0]} channels, and {wanted[0]}x{wanted[1]} "
            f"with {options.channels or shape[0]} is asked for; images in arrays are not scaled: leave size out"
        )
