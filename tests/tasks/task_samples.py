"""Small data sets in every format, made by the tests."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def images(count, *, size=(32, 32), channels=3, seed=0):
    """uint8 images (count, height, width, channels), all different."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def labels_of(count, classes=10):
    return np.arange(count) % classes


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, kind)
    return buffer.getvalue()


def write_parquet(
    file: Path, pictures, labels, *, image="img", label="label", kind="PNG", names=None, plain=False
):
    """A table as the hub writes it: a struct of bytes and path, and a label."""
    data = [encode(picture, kind) for picture in pictures]
    column = (
        pa.array(data)
        if plain
        else pa.array([{"bytes": item, "path": f"{n}.png"} for n, item in enumerate(data)])
    )
    table = pa.table({image: column, label: pa.array(list(labels))})
    if names is not None:
        notes = json.dumps({"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}})
        table = table.replace_schema_metadata({"huggingface": notes})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def idx(array) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, train=200, test=50, size=(28, 28), packed=True):
    """The four IDX files."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        pictures = images(count, size=size, channels=1)[..., 0]
        for name, array in (("images-idx3-ubyte", pictures), ("labels-idx1-ubyte", labels_of(count))):
            file = folder / f"{stem}-{name}{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return folder


def write_folder(root: Path, per_class, *, size=(16, 16), classes=("cat", "dog"), kind="PNG", seed=0):
    """One folder a class, with images in it."""
    pictures = images(per_class * len(classes), size=size, seed=seed)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(per_class):
            file = root / name / f"{place:03d}.{kind.lower()}"
            file.write_bytes(encode(pictures[number * per_class + place], kind))
    return root
