"""Image folders: one subfolder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean
from lianzhi.tasks import cache, hashing

ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))
WHOLE = 256 * 2**20
PARTS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class FolderImages:
    """The files of one part with their labels; a label is the class's place in `classes`."""

    folder: Path
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def encoded(self, row: int) -> bytes:
        """The bytes of one image."""
        return self.files[row].read_bytes()

    def where(self, row: int) -> str:
        """The file of a row."""
        return str(self.files[row])

    def digest(self) -> str:
        """Of names and sizes; up to 256 MiB in all, of the contents as well."""
        sizes = [file.stat().st_size for file in self.files]
        names = [
            f"{file.relative_to(self.folder)}:{size}" for file, size in zip(self.files, sizes, strict=True)
        ]
        contents = cache.digest_files(self.files) if sum(sizes) <= WHOLE else ""
        return hashing.digest("\n".join(names), contents)


def find_parts(folder: Path) -> dict[str, Path]:
    """The subfolders of a training, validation and test part, under their usual names."""
    found = {
        part: folder / name for part, names in PARTS.items() for name in names if (folder / name).is_dir()
    }
    if "train" not in found and any(classes_of(place) for place in found.values()):
        raise DataError(
            f"{folder}: has {', '.join(sorted(place.name for place in found.values()))} with class folders, and no train "
            f"beside it; add train, or give the folder that holds the classes"
        )
    return found if "train" in found else {}


def find_files(folder: Path, ending: str) -> dict[str, Path]:
    """The one file of each part, such as ``train.npz``, under its usual names; ``train`` must be there."""
    found = {
        part: folder / f"{name}.{ending}"
        for part, names in PARTS.items()
        for name in names
        if (folder / f"{name}.{ending}").is_file()
    }
    if "train" not in found:
        raise DataError(
            f"{folder}: holds no train.{ending}; give the file itself, or a folder with train.{ending}"
        )
    return found


def classes_of(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted."""
    return tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    )


def read(folder: Path, classes: Sequence[str]) -> FolderImages:
    """List the images of a part.

    Raises:
        DataError: there are none, a class is not known, or images lie beside the class folders.
    """
    here = classes_of(folder)
    if not here:
        loose = sum(1 for entry in folder.iterdir() if entry.suffix.lower() in ENDINGS)
        found = f"{loose:,} images but no class folders" if loose else "no class folders"
        raise DataError(f"{folder}: {found}; put the images of each class into a subfolder of its name")
    numbers = {name: number for number, name in enumerate(classes)}
    files: list[Path] = []
    labels: list[int] = []
    for name in here:
        if name not in numbers:
            raise DataError(
                f"{folder / name}: the class '{name}' is not one of the {len(numbers)} known{did_you_mean(name, numbers)}"
            )
        images = _images(folder / name)
        files += images
        labels += [numbers[name]] * len(images)
    if not files:
        raise DataError(f"{folder}: its class folders hold no images ({', '.join(sorted(ENDINGS))})")
    return FolderImages(folder, tuple(files), np.asarray(labels, np.int64), tuple(classes))


def _images(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(place, name) for name in sorted(names) if Path(name).suffix.lower() in ENDINGS]
    return found
