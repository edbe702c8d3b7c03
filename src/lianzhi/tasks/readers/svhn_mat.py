"""SVHN's MATLAB files: ``X`` is uint8 of shape (32, 32, 3, samples), ``y`` the digits, with 10 for zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lianzhi.errors import DataError
from lianzhi.tasks import cache
from lianzhi.tasks.part import Part, as_labels
from lianzhi.tasks.stores import PixelStore


def read_part(file: Path) -> Part:
    """One part.

    Raises:
        DataError: the file is missing, damaged, or holds other arrays.
    """
    from scipy.io import loadmat

    if not file.is_file():
        raise DataError(f"{file}: no such file; SVHN has train_32x32.mat and test_32x32.mat")
    try:
        arrays = loadmat(file, variable_names=("X", "y"))
    except Exception as error:  # a damaged file raises nearly anything
        raise DataError(f"{file}: not a readable MATLAB file ({error}); get it again") from None
    if "X" not in arrays or "y" not in arrays:
        raise DataError(f"{file}: has no arrays X and y; get the cropped digits (format 2)")
    images = arrays["X"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(
            f"{file}: X is {images.dtype} of shape {images.shape}; expected uint8 of (32, 32, 3, samples)"
        )
    labels = as_labels(arrays["y"].reshape(-1), str(file))
    pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return Part(PixelStore(pixels, cache.digest_files([file])), np.where(labels == 10, 0, labels), str(file))
