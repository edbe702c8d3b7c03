"""NumPy archives: arrays of samples and labels under the names that are in use."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError, did_you_mean

PAIRS = (
    ("x", "y"),
    ("X", "y"),
    ("images", "labels"),
    ("image", "label"),
    ("data", "labels"),
    ("data", "label"),
    ("inputs", "labels"),
)
PARTS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

Arrays = dict[str, tuple[NDArray[Any], NDArray[Any]]]


def read(file: Path, inputs: str | None, labels: str | None) -> Arrays:
    """Return (samples, labels) by part, ``train`` being the whole where the archive is not in parts.

    Raises:
        DataError: the file is missing or damaged, has other names, or holds pickled objects.
    """
    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{file}: a single array; save samples and labels together: np.savez(file, x=…, y=…)"
                )
            names = choose(list(archive), file, inputs, labels)
            return {part: (archive[first], archive[second]) for part, (first, second) in names.items()}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"{file}: not a readable NPZ archive ({error}); pickled objects are refused"
        ) from None
    except zlib.error as error:
        raise DataError(f"{file}: damaged ({error}); make it again") from None


def choose(
    names: list[str], file: Path, inputs: str | None, labels: str | None
) -> dict[str, tuple[str, str]]:
    """The names of samples and labels by part.

    >>> choose(["x_train", "y_train", "x_test", "y_test"], Path("mnist.npz"), None, None)
    {'train': ('x_train', 'y_train'), 'test': ('x_test', 'y_test')}
    >>> choose(["train_images", "train_labels", "val_images", "val_labels"], Path("m.npz"), None, None)
    {'train': ('train_images', 'train_labels'), 'validation': ('val_images', 'val_labels')}
    """
    told = [name for name in (inputs, labels) if name is not None]
    for name in told:
        if name not in names:
            raise DataError(f"{file}: no array '{name}'{did_you_mean(name, names)}")
    if len(told) == 2:
        return {"train": (told[0], told[1])}
    if told:
        raise DataError(f"{file}: give both 'inputs' and 'labels', the names of the two arrays")
    for first, second in PAIRS:
        if first in names and second in names:
            return {"train": (first, second)}
    found: dict[str, tuple[str, str]] = {}
    for part, words in PARTS.items():
        for word in words:
            for first, second in PAIRS:
                for pair in (
                    (f"{first}_{word}", f"{second}_{word}"),
                    (f"{word}_{first}", f"{word}_{second}"),
                ):
                    if pair[0] in names and pair[1] in names:
                        found.setdefault(part, pair)
    if "train" not in found:
        raise DataError(
            f"{file}: arrays {', '.join(names) or 'none'}; expected x and y, or x_train, y_train, x_test, y_test; "
            f"or name them with the options 'inputs' and 'labels'"
        )
    return found
