"""Image folders of one's own: one subfolder a class, in ``train``, ``val`` and ``test`` folders or without."""

from __future__ import annotations

from pathlib import Path

from lianzhi.errors import DataError
from lianzhi.tasks._task import Task
from lianzhi.tasks.catalog import registry
from lianzhi.tasks.options import OwnImageOptions
from lianzhi.tasks.own_images import Origin, open_images
from lianzhi.tasks.pictures import Encoded
from lianzhi.tasks.readers import folder as reader


class ImageFolderOptions(OwnImageOptions):
    """Options of `image_folder`."""


@registry.register(
    "image_folder",
    "Image files in one folder a class; cut where it has no train, val, test",
    config=ImageFolderOptions,
)
def image_folder(data: Path | None, options: ImageFolderOptions) -> Task:
    """Make the task; the classes are the folders of the training part, in sorted order."""
    if data is None:
        raise DataError(
            "task 'image_folder': give data: a folder with one subfolder a class, or with such folders in train/ and test/"
        )
    if not data.is_dir():
        raise DataError(f"task 'image_folder': {data}: no such folder")
    places = reader.find_parts(data) or {"train": data}
    classes = reader.classes_of(places["train"])
    sources = {part: encoded(reader.read(place, classes)) for part, place in places.items()}
    return open_images(sources, Origin("image_folder", str(data), len(classes), classes), options)


def encoded(images: reader.FolderImages) -> Encoded:
    """The listed files as encoded images."""
    return Encoded(images.encoded, images.where, images.labels, images.digest(), str(images.folder))
