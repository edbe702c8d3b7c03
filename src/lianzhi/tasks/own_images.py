"""Encoded images of a user's own, of whatever reader, to a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts, assemble
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.pictures import Encoded, choose_frame, part_of


@dataclass(frozen=True)
class Origin:
    """Which task it is, where its data lies, and what is known beforehand."""

    name: str
    source: str
    num_classes: int | None = None
    labels: Sequence[str] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


def open_images(sources: dict[str, Encoded], origin: Origin, options: OwnImageOptions) -> Task:
    """Make the task of images in parts ``train``, ``validation`` and ``test``."""
    first = sources.get("train") or next(iter(sources.values()))
    frame = choose_frame(first, options.size, options.channels)
    parts = {name: part_of(images, frame) for name, images in sources.items()}
    facts = Facts(
        name=origin.name,
        source=origin.source,
        num_classes=origin.num_classes,
        labels=origin.labels,
        size=frame.size,
        channels=frame.channels,
        mean=origin.mean,
        std=origin.std,
        resize=frame.resize,
        crop=frame.crop,
        min_area=options.min_area,
        notes=origin.notes,
    )
    return assemble(parts, facts, options)
