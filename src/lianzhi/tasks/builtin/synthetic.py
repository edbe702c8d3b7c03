"""Made-up data for benchmarks and tests: blurred class patterns under noise, the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from lianzhi.errors import DataError
from lianzhi.tasks import hashing
from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts, assemble
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import Count, ImageOptions
from lianzhi.tasks.part import Part
from lianzhi.tasks.stores import NumberStore, PixelStore, Store


class SyntheticOptions(ImageOptions):
    """Options of `synthetic`; the test part has a quarter as many samples again."""

    samples: int = Field(default=1024, ge=4)
    classes: int = Field(default=10, ge=1)
    shape: tuple[int, ...] = (3, 32, 32)
    noise: float = Field(default=0.3, ge=0)
    data_seed: int = 0
    validation: Count = 0.125
    calibration: Count = 0.125
    padding: int = Field(default=2, ge=0)

    @field_validator("shape")
    @classmethod
    def _is_a_shape(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or min(shape) < 1 or (len(shape) == 3 and shape[0] not in (1, 3)):
            raise ValueError(
                f"is (channels, height, width) with 1 or 3 channels, or the shape of plain numbers; got {shape}"
            )
        return shape


@registry.register(
    "synthetic",
    "Made-up images or vectors, for benchmarks and trials; needs no data",
    config=SyntheticOptions,
)
def synthetic(data: Path | None, options: SyntheticOptions) -> Task:
    """Make the task; each class is a coarse random pattern, each sample that pattern under noise."""
    if data is not None:
        raise DataError(f"task 'synthetic' makes its own data; leave out data ({data})")
    parts = {
        "train": _part(options, "train", options.samples),
        "test": _part(options, "test", max(1, options.samples // 4)),
    }
    images = len(options.shape) == 3
    facts = Facts(
        name="synthetic",
        source="made up",
        num_classes=options.classes,
        size=(options.shape[1], options.shape[2]) if images else None,
        channels=options.shape[0] if images else 0,
        mean=(0.5,) * options.shape[0] if images else None,
        std=(0.25,) * options.shape[0] if images else None,
        notes=("made-up data: accuracies mean nothing outside this machine",),
    )
    return assemble(parts, facts, options)


def _part(options: SyntheticOptions, name: str, count: int) -> Part:
    labels = np.arange(count) % options.classes
    generator = np.random.default_rng(int(hashing.key(options.data_seed, name)))
    patterns = _patterns(options)[labels]
    noise = generator.standard_normal((count, *options.shape), dtype=np.float32) * np.float32(options.noise)
    digest = hashing.digest(name, options.to_dict().__repr__())
    store: Store
    if len(options.shape) == 3:
        store = PixelStore(np.clip((patterns + noise) * 64 + 128, 0, 255).astype(np.uint8), digest)
    else:
        store = NumberStore(patterns + noise, digest)
    return Part(store, labels, f"synthetic {name}")


def _patterns(options: SyntheticOptions) -> Any:
    """One coarse pattern a class, of values around 0 with deviation 1."""
    generator = np.random.default_rng(int(hashing.key(options.data_seed, "patterns")))
    if len(options.shape) != 3:
        return generator.standard_normal((options.classes, *options.shape), dtype=np.float32)
    channels, height, width = options.shape
    coarse = generator.standard_normal((options.classes, channels, 4, 4), dtype=np.float32)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return coarse[:, :, rows][:, :, :, columns]
