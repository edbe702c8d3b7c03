"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images, 32×32."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.known import Published, open_published
from lianzhi.tasks.options import ImageOptions
from lianzhi.tasks.part import Part
from lianzhi.tasks.readers.cifar_batches import read_part

FOLDER = "cifar-10-batches-py"


class Cifar10Options(ImageOptions):
    """Options of `cifar10`."""


def native(folder: Path) -> dict[str, Part] | None:
    """The parts from the pickled batches, if they are there."""
    for place in (folder / FOLDER, folder):
        if (place / "data_batch_1").is_file():
            train = [place / f"data_batch_{number}" for number in range(1, 6)]
            return {"train": read_part(train, "labels"), "test": read_part([place / "test_batch"], "labels")}
    return None


# Mean and deviation are ImageNet's, not CIFAR's: the published weights of the CIFAR ResNets were trained with them.
PUBLISHED = Published(
    facts=Facts(
        name="cifar10",
        source="",
        num_classes=10,
        labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        size=(32, 32),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    title="CIFAR-10",
    repository="uoft-cs/cifar10",
    label="label",
    native=native,
    native_files=f"{FOLDER}/data_batch_1 … test_batch",
)


@registry.register("cifar10", "CIFAR-10: 32x32 colour, 10 classes, 50,000 + 10,000", config=Cifar10Options)
def cifar10(data: Path | None, options: Cifar10Options) -> Task:
    """Make the task from Parquet, from torchvision's folder, or from the hub."""
    return open_published(PUBLISHED, data, options)
