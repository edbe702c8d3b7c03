"""The four IDX files of MNIST and of the sets made like it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from lianzhi.errors import DataError
from lianzhi.tasks import cache
from lianzhi.tasks.part import Part
from lianzhi.tasks.readers import idx
from lianzhi.tasks.stores import PixelStore

Checksums: TypeAlias = dict[str, str]
STEMS = {"train": "train", "test": "t10k"}


def read_parts(
    folder: Path, *, unpacked: Checksums | None = None, packed: Checksums | None = None
) -> dict[str, Part] | None:
    """The training and the test part; None if none of the files is there.

    The checksums are by name of file, without ``.gz``: of the unpacked contents, or of the ``.gz`` files.
    """
    kinds = {"images": ("images-idx3-ubyte", 3), "labels": ("labels-idx1-ubyte", 1)}
    names = {(part, kind): f"{stem}-{kinds[kind][0]}" for part, stem in STEMS.items() for kind in kinds}
    files = {which: idx.find(folder, name) for which, name in names.items()}
    if not any(files.values()):
        return None
    missing = [f"{name}.gz" for which, name in names.items() if files[which] is None]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing beside the other files; get all four")
    parts = {}
    for part in STEMS:
        arrays = {}
        for kind, (_, axes) in kinds.items():
            file, name = files[part, kind], names[part, kind]
            assert file is not None
            arrays[kind] = idx.read(
                file, axes, sha256=(unpacked or {}).get(name), sha256_packed=(packed or {}).get(name)
            )
        found = [file for (which, _), file in files.items() if which == part and file is not None]
        images, labels = arrays["images"], arrays["labels"]
        if images.shape[1:] != (28, 28):
            size = "x".join(str(side) for side in images.shape[1:])
            raise DataError(f"{found[0]}: the images are {size}, and 28x28 is expected")
        parts[part] = Part(
            PixelStore(images[:, None], cache.digest_files(found)), labels.astype("int64"), str(found[1])
        )
    return parts
