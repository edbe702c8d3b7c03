"""What data lies at a place, by names of files and folders, by columns, and by nothing else: no image is opened.

Published sets come first, since what is known of them (mean, class names, which part is reported) is better than what is
found; then images, then texts.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lianzhi.errors import DataError
from lianzhi.tasks.builtin import cifar10, cifar100, fashion_mnist, parquet
from lianzhi.tasks.readers import arrow, idx, text_files
from lianzhi.tasks.readers import folder as folders
from lianzhi.tasks.readers import parquet as image_tables
from lianzhi.tasks.text_columns import SCORES, columns_of

GLUE = {
    **{"CoLA": "cola", "MRPC": "mrpc", "QQP": "qqp", "STS-B": "stsb", "SST-2": "sst2"},
    **{"MNLI": "mnli", "QNLI": "qnli", "RTE": "rte", "WNLI": "wnli"},
}
IMAGE_SETS = ("cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "imagenet")
IDX = "train-images-idx3-ubyte"
CALIBRATION = 128
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Recognized:
    """Data at a place: the task that reads it, the options that it needs, and in words what it is."""

    path: Path
    task: str
    what: str
    options: dict[str, Any] = field(default_factory=dict)


def recognize(path: Path, options: Mapping[str, Any] | None = None) -> Recognized | None:
    """What lies at `path`, or None for nothing that a task reads.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = (Path(place) / "train.csv").write_text("text,label\\ngood,1\\nbad,0\\n")
    ...     recognize(Path(place)).task
    'text'

    `options` are those of the task that are told beforehand, such as the column of the texts. Raises `DataError` where
    data of a kind is there and something is missing: a column that nobody names, a part without the one to train on.
    """
    told = dict(options or {})
    if path.is_dir():
        for look in (_published, _text_set, _image_folder, _parquet, _npz):
            found = look(path)
            if found is not None:
                return found
        return _texts(path, told)
    ending = path.suffix.lower()
    if ending == arrow.PARQUET:
        return _parquet(path) or _texts(path, told)
    if ending == ".npz":
        return Recognized(path, "npz", "a NumPy archive of samples with labels")
    return _texts(path, told) if path.is_file() and ending in text_files.ENDINGS else None


def _published(folder: Path) -> Recognized | None:
    """Image sets in their authors' own form."""
    for name, module in (("cifar10", cifar10), ("cifar100", cifar100)):
        for place in (folder, folder / module.FOLDER):
            if (place / "batches.meta").is_file() or (place.name == module.FOLDER and place.is_dir()):
                return Recognized(folder, name, f"{name} as its authors publish it")
    if (folder / "train_32x32.mat").is_file():
        return Recognized(folder, "svhn", "SVHN as its authors publish it")
    if idx.find(folder, IDX) is None:
        return None
    fashion = _is_fashion(folder)
    return Recognized(folder, "fashion_mnist" if fashion else "mnist", "four IDX files")


def _is_fashion(folder: Path) -> bool:
    """Whether IDX files are Fashion-MNIST's: by the checksum of the smallest, else by the folder's name."""
    stem = "t10k-labels-idx1-ubyte"
    file = idx.find(folder, stem)
    if file is not None:
        packed = file.read_bytes()
        try:
            contents = gzip.decompress(packed) if file.suffix == ".gz" else packed
        except (OSError, EOFError, zlib.error):
            contents = b""
        if hashlib.sha256(contents).hexdigest() == fashion_mnist.UNPACKED[stem]:
            return True
    return "fashion" in folder.resolve().name.lower()


def _text_set(folder: Path) -> Recognized | None:
    """GLUE's folders, SNLI and XNLI."""
    name = folder.resolve().name
    if name in GLUE and (folder / "train.tsv").is_file():
        return Recognized(folder, GLUE[name], f"GLUE's {name}")
    if (folder / "snli_1.0_train.txt").is_file():
        return Recognized(folder, "snli", "SNLI as its authors publish it")
    if (folder / "XNLI-1.0").is_dir():
        return Recognized(folder, "xnli", "XNLI as its authors publish it")
    return None


def _image_folder(folder: Path) -> Recognized | None:
    """One folder a class, with parts or without."""
    parts = folders.find_parts(folder)
    place = parts.get("train", folder)
    classes = [name for name in folders.classes_of(place) if _holds_images(place / name)]
    if not classes:
        return None
    if (folder / "classes.txt").is_file() and all(WNID.fullmatch(name) for name in classes):
        return Recognized(folder, "imagenet", f"ImageNet, {len(classes):,} of its classes")
    how = f" in {', '.join(place.name for place in parts.values())}" if parts else ""
    return Recognized(folder, "image_folder", f"images, a folder a class ({len(classes):,}){how}")


def _holds_images(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in folders.ENDINGS for entry in folder.iterdir())
    except OSError:
        return False


def _parquet(path: Path) -> Recognized | None:
    """Tables of images; a folder that is called like a published set is that set."""
    if path.is_dir():
        found = [file for name in ("train", "training") for file in image_tables.find(path, name)]
        files = found or sorted(path.glob(f"*{arrow.PARQUET}"))
    else:
        files = [path]
    if not files or not _has_images(files[0]):
        return None
    if path.is_dir() and (path / "classes.txt").is_file():
        cut = {} if found else {"calibration": CALIBRATION}  # of the one part that there is
        return Recognized(path, "imagenet", "ImageNet in Parquet", cut)
    called = re.sub(r"[^a-z0-9]", "", path.resolve().name.lower())
    for name in IMAGE_SETS:
        if path.is_dir() and called == name.replace("_", ""):
            return Recognized(path, name, f"{name} in Parquet")
    parts = parquet.find(path)
    return Recognized(path, "parquet", f"Parquet with images ({', '.join(parts)})")


def _has_images(file: Path) -> bool:
    """Whether a column is called as images are, and holds bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return False
    kinds = [schema.field(name).type for name in image_tables.IMAGES if name in schema.names]
    return any(pa.types.is_struct(kind) or _is_bytes(kind) for kind in kinds)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests: tuple[Callable[[Any], bool], ...] = (pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _npz(folder: Path) -> Recognized | None:
    if (folder / "train.npz").is_file():
        return Recognized(folder, "npz", "NumPy archives of samples with labels")
    return None


def _texts(path: Path, told: Mapping[str, Any]) -> Recognized | None:
    """Tables of texts whose columns are known."""
    found = text_files.find(path)
    if not found:
        return None
    first = next(iter(found.values()))[0]
    names = text_files.names(first, told.get("header"))
    scored = bool(told.get("score")) or (
        "label" not in told and "label" not in names and any(name in names for name in SCORES[:2])
    )
    asked = {key: told.get(key) for key in ("text", "second", "label")}
    columns = columns_of(names, str(first), **asked, score=scored)
    options: dict[str, Any] = {"score": True} if scored and "score" not in told else {}
    pair = f" and '{columns.second}'" if columns.second else ""
    kind = "scores" if scored else "classes"
    what = f"{first.suffix[1:].upper()} with texts in '{columns.text}'{pair}, {kind} in '{columns.label}'"
    return Recognized(path, "text", what, options)


def explained(path: Path, options: Mapping[str, Any] | None = None) -> Recognized:
    """`recognize`, or a `DataError` that says what data may be."""
    if not path.exists():
        raise text_files.missing(path)
    found = recognize(path, options)
    if found is None:
        raise DataError(
            f"{path}: no data that is known. Data is a folder with one subfolder of images a class (or with such folders "
            f"in train/ and test/), Parquet with images, four IDX files, an .npz file, or texts with labels in "
            f"{text_files.KINDS}; docs/data.md has the whole list"
        )
    return found
