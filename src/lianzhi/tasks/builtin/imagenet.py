"""ImageNet (ILSVRC 2012): a folder a class named by its wnid, or Parquet; labels 0–999 in the order of the wnids.

A data set with all 1,000 classes needs nothing more. One with fewer needs ``classes.txt`` beside it, whose lines
are number, wnid and name (tab-separated), so that labels mean the same as in published models.
"""

from __future__ import annotations

from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.builtin import image_folder as own
from lianzhi.tasks.builtin import parquet as tables
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import Count, OwnImageOptions, Size
from lianzhi.tasks.own_images import Origin, open_images
from lianzhi.tasks.part import as_labels
from lianzhi.tasks.pictures import Encoded
from lianzhi.tasks.readers import folder as reader
from lianzhi.tasks.readers import parquet as parquet_reader

CLASSES = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImagenetOptions(OwnImageOptions):
    """Options of `imagenet`; the validation images of ILSVRC are the part that is reported."""

    validation: Count = 10_000
    calibration: Count = 1024
    size: Size | None = 224
    min_area: float = 0.08


@registry.register(
    "imagenet",
    "ImageNet: folders by wnid, or Parquet; 224x224, 1,000 classes",
    paper="1409.0575",
    config=ImagenetOptions,
)
def imagenet(data: Path | None, options: ImagenetOptions) -> Task:
    """Make the task. Without a training part there is only the part that is reported."""
    if data is None:
        raise DataError(
            "task 'imagenet': give data: a folder with train/ and val/ (by wnid), or with Parquet files"
        )
    if not data.exists():
        raise DataError(f"task 'imagenet': {data}: no such file or folder")
    place = data if data.is_dir() else data.parent
    names = class_names(place / "classes.txt") if (place / "classes.txt").is_file() else {}
    files = _tables(data)
    if files:
        sources, listed = _from_tables(files)
    else:
        sources, listed = _from_folders(data, list(names)), None
    labels = list(names.values()) if len(names) == CLASSES else listed
    source = Origin("imagenet", str(data), CLASSES, labels, MEAN, STD)
    return open_images(sources, source, options)


def class_names(file: Path) -> dict[str, str]:
    """wnid → name, in the order of the labels."""
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        fields = line.split("\t")
        if len(fields) < 2 or not fields[0].strip().isdigit() or int(fields[0]) != number:
            raise DataError(
                f"{file}, line {number + 1}: '{line[:60]}'; expected the number {number}, a tab, the wnid, a tab, the name"
            )
        found[fields[1]] = fields[2] if len(fields) > 2 else fields[1]
    if len(found) != CLASSES:
        raise DataError(f"{file}: {len(found)} classes; it must list all {CLASSES}")
    return found


def _tables(data: Path) -> dict[str, list[Path]]:
    """The Parquet files, if there are any; ILSVRC's test images have no labels and are left aside."""
    if data.is_file():
        return {"test": [data]}
    found = {
        part: [file for name in reader.PARTS[part] for file in parquet_reader.find(data, name)]
        for part in ("train", "validation")
    }
    found = {part: files for part, files in found.items() if files}
    if not found:
        loose = [file for file in sorted(data.glob("*.parquet")) if not file.name.startswith("test")]
        found = {"test": loose} if loose else {}
    return found


def _from_tables(files: dict[str, list[Path]]) -> tuple[dict[str, Encoded], list[str] | None]:
    read = {part: parquet_reader.read(found) for part, found in files.items()}
    names = next(iter(read.values())).names
    sources = {
        part: tables.encoded(table, as_labels(table.labels, str(table.files[0])))
        for part, table in read.items()
    }
    return sources, names if names is not None and len(names) == CLASSES else None


def _from_folders(data: Path, wnids: list[str]) -> dict[str, Encoded]:
    """The parts by wnid folders, labelled by the wnid's place among all 1,000."""
    for root in (data, data / "ILSVRC" / "Data" / "CLS-LOC"):
        places = {"train": root / "train", "validation": root / "val"}
        places = {part: place for part, place in places.items() if place.is_dir()}
        if places:
            break
    else:
        places = {"test": data}
    here = sorted({name for place in places.values() for name in reader.classes_of(place)})
    strange = [name for name in here if not (name[:1] == "n" and name[1:].isdigit())]
    if not here or strange:
        what = (
            f"'{strange[0]}' is no wnid" if strange else f"{next(iter(places.values()))} has no class folders"
        )
        raise DataError(
            f"task 'imagenet': {what} (such as n01440764); sort the images into a folder a wnid, "
            f"or use the task image_folder for classes of your own"
        )
    known = wnids or here
    if len(known) != CLASSES:
        raise DataError(
            f"task 'imagenet': {data} has {len(here)} of {CLASSES} classes, so their numbers are not known; put "
            f"classes.txt beside them (number, tab, wnid, tab, name), or use the task image_folder"
        )
    return {part: own.encoded(reader.read(place, known)) for part, place in places.items()}
