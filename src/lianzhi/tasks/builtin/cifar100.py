"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images, 32×32, by their 100 fine classes."""

from __future__ import annotations

from pathlib import Path

from lianzhi.tasks._task import Task
from lianzhi.tasks.assemble import Facts
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.known import Published, open_published
from lianzhi.tasks.options import ImageOptions
from lianzhi.tasks.part import Part
from lianzhi.tasks.readers.cifar_batches import read_part

FOLDER = "cifar-100-python"
LABELS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


class Cifar100Options(ImageOptions):
    """Options of `cifar100`."""


def native(folder: Path) -> dict[str, Part] | None:
    """The parts from the pickled files, if they are there."""
    for place in (folder / FOLDER, folder):
        if (place / "train").is_file():
            return {name: read_part([place / name], "fine_labels") for name in ("train", "test")}
    return None


PUBLISHED = Published(
    facts=Facts(
        name="cifar100",
        source="",
        num_classes=100,
        labels=tuple(LABELS.split()),
        size=(32, 32),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    ),
    title="CIFAR-100",
    repository="uoft-cs/cifar100",
    label="fine_label",
    native=native,
    native_files=f"{FOLDER}/train and test",
)


@registry.register(
    "cifar100", "CIFAR-100: 32x32 colour, 100 classes, 50,000 + 10,000", config=Cifar100Options
)
def cifar100(data: Path | None, options: Cifar100Options) -> Task:
    """Make the task from Parquet, from torchvision's folder, or from the hub."""
    return open_published(PUBLISHED, data, options)
