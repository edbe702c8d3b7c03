"""From the parts that a reader found to a task: check, cut, limit, normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.augmentation import Augmentation
from lianzhi.tasks.cuts import limited, partition
from lianzhi.tasks.options import ImageOptions, OwnImageOptions, SplitOptions
from lianzhi.tasks.part import Part, check_labels
from lianzhi.tasks.preprocess import Preprocess
from lianzhi.tasks.split import StoredSplit
from lianzhi.tasks.statistics import pixel_statistics
from lianzhi.tasks.stores import NumberStore


@dataclass(frozen=True)
class Facts:
    """What is known of a data set beside its samples.

    `size` and `channels` are those of the images (None: the samples are plain numbers). `mean` and `std`
    are used where the options give none; None means that they are computed.
    """

    name: str
    source: str
    num_classes: int | None = None
    labels: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    crop: tuple[int, int] | None = None
    min_area: float = 0.08
    notes: tuple[str, ...] = ()


Chosen = dict[str, tuple[Part, NDArray[np.int64]]]


def assemble(parts: dict[str, Part], facts: Facts, options: SplitOptions) -> Task:
    """Make the task of parts ``train``, ``validation`` and ``test``, of which the first two may be missing.

    Where there is no ``test`` part, ``validation`` takes its place if the data has one, and is reported; the
    split to choose by is then cut from ``train``. Data of one part only is cut into all of them.
    """
    classes = _classes(parts, facts, options)
    for part in parts.values():
        check_labels(part, classes)
    chosen = {
        name: (part, limited(rows, part.labels[rows], options.limit, options.split_seed))
        for name, (part, rows) in _choose(parts, options).items()
    }
    preprocess = _preprocess(chosen, facts, options) if facts.size is not None else None
    augmentation = None
    if isinstance(options, ImageOptions):
        augmentation = Augmentation(options.padding, options.flip, facts.min_area)
    splits = {
        name: StoredSplit(
            part.store,
            rows,
            part.labels[rows],
            preprocess=preprocess,
            augmentation=augmentation if name == "train" else None,
        )
        for name, (part, rows) in chosen.items()
    }
    return Task(
        *(splits.get(split) for split in ("train", "validation", "calibration", "test")),
        name=facts.name,
        labels=facts.labels,
        num_classes=classes,
        preprocess=preprocess,
        source=facts.source,
        notes=facts.notes,
    )


def _classes(parts: dict[str, Part], facts: Facts, options: SplitOptions) -> int:
    """The number of classes: as told, else as in the training part."""
    told = options.classes if isinstance(options, OwnImageOptions) else None
    if told is not None and facts.num_classes is not None and told != facts.num_classes:
        raise DataError(
            f"{facts.source}: has {facts.num_classes} classes, and the option 'classes' says {told}"
        )
    known = told or facts.num_classes
    if known is not None:
        return known
    part = parts.get("train") or next(iter(parts.values()))
    return int(part.labels.max()) + 1


def _choose(parts: dict[str, Part], options: SplitOptions) -> Chosen:
    """Which rows of which part make each split."""
    parts = dict(parts)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    counts: dict[str, int | float] = {"validation": options.validation, "calibration": options.calibration}
    if "train" not in parts:
        return _without_train(parts, options)
    if "test" not in parts:
        counts = {"test": options.test if isinstance(options, OwnImageOptions) else 0.1, **counts}
    if "validation" in parts:
        del counts["validation"]
    train = parts["train"]
    rows = partition(train.labels, counts, options.split_seed, what=train.where)
    chosen: Chosen = {name: (train, selected) for name, selected in rows.items()}
    for name in ("validation", "test"):
        if name in parts:
            chosen[name] = (parts[name], np.arange(len(parts[name].labels)))
    return {name: chosen[name] for name in ("train", "validation", "calibration", "test") if name in chosen}


def _without_train(parts: dict[str, Part], options: SplitOptions) -> Chosen:
    """Only a part to report on: calibration samples are cut from it where the caller asks for them."""
    test = parts["test"]
    everything = np.arange(len(test.labels))
    if "calibration" not in options.model_fields_set or not options.calibration:
        return {"test": (test, everything)}
    rows = partition(test.labels, {"calibration": options.calibration}, options.split_seed, what=test.where)
    return {"calibration": (test, rows["calibration"]), "test": (test, rows["train"])}


def _preprocess(chosen: Chosen, facts: Facts, options: SplitOptions) -> Preprocess:
    """The preprocessing, with mean and standard deviation as told, as known, or as computed on train."""
    assert facts.size is not None
    told = options if isinstance(options, ImageOptions) else ImageOptions()
    plain = Preprocess(
        facts.size, facts.channels, (0.0,) * facts.channels, (1.0,) * facts.channels, facts.resize, facts.crop
    )
    mean, std = told.mean or facts.mean, told.std or facts.std
    if mean is None or std is None:
        part, rows = chosen.get("train") or next(iter(chosen.values()))
        assert not isinstance(part.store, NumberStore)
        found = pixel_statistics(part.store, rows, facts.size, facts.channels, plain)
        mean, std = mean or found[0], std or found[1]
    return replace(plain, mean=tuple(mean), std=tuple(std))
