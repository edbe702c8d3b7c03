"""The OneFlow platform's JSON: ``data`` (flat numbers of all samples), ``label``, and ``shape`` of a sample.

One object for all samples, or a list (or lines) of one object a sample. ``shape`` may begin with the number of
samples. Whole numbers in 0–255 of an image's shape are pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError

KEYS = ("data", "label", "shape")


def read(file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (samples, labels).

    Raises:
        DataError: the file is missing or damaged, lacks a key, or its numbers do not fill its shape.
    """
    content = _parse(file)
    if isinstance(content, dict):
        _require(content, str(file))
        labels = np.asarray(_numbers(content["label"], f"{file}: 'label'")).reshape(-1)
        shape = _shape(content["shape"], str(file))
        if (
            len(shape) > 1
            and shape[0] == len(labels)
            and _size(content["data"], str(file)) == math.prod(shape)
        ):
            shape = shape[1:]
        return _samples(content["data"], len(labels), shape, str(file)), labels
    if not isinstance(content, list) or not content:
        raise DataError(f"{file}: expected an object with {', '.join(KEYS)}, or a list of them")
    samples, classes = [], []
    for row, item in enumerate(content):
        where = f"{file}, row {row}"
        if not isinstance(item, dict):
            raise DataError(f"{where}: a {type(item).__name__}; expected an object with {', '.join(KEYS)}")
        _require(item, where)
        samples.append(_samples(item["data"], 1, _shape(item["shape"], where), where)[0])
        classes.append(np.asarray(_numbers(item["label"], where)).reshape(-1))
        if samples[-1].shape != samples[0].shape:
            raise DataError(
                f"{where}: shape {samples[-1].shape}, and the first is {samples[0].shape}; make them alike"
            )
        if len(classes[-1]) != 1:
            raise DataError(f"{where}: {len(classes[-1])} labels; expected one")
    return _pixels(np.stack(samples)), np.concatenate(classes)


def _parse(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{file}: nested too deep to be data") from None
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise DataError(f"{file}: not JSON ({error})") from None


def _require(item: dict[str, Any], where: str) -> None:
    missing = [key for key in KEYS if key not in item]
    if missing:
        raise DataError(f"{where}: no {', '.join(missing)}; expected the keys {', '.join(KEYS)}")


def _shape(value: Any, where: str) -> tuple[int, ...]:
    sizes = value if isinstance(value, list) else [value]
    if not sizes or not all(
        isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes
    ):
        raise DataError(f"{where}: 'shape' is {value!r}; expected positive whole numbers such as [1, 28, 28]")
    return tuple(sizes)


def _numbers(value: Any, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: expected numbers, all lists of one length")
    return array


def _size(value: Any, where: str) -> int:
    return int(_numbers(value, where).size)


def _samples(value: Any, count: int, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    array = _numbers(value, f"{where}: 'data'")
    if array.size != count * math.prod(shape):
        raise DataError(
            f"{where}: {array.size:,} numbers, and {count:,} samples of shape {shape} are {count * math.prod(shape):,}"
        )
    return _pixels(array.reshape(count, *shape))


def _pixels(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in 0–255 that can be images, as uint8."""
    whole = (
        array.dtype.kind in "iu"
        and array.ndim >= 3
        and array.size
        and array.min() >= 0
        and array.max() <= 255
    )
    return array.astype(np.uint8) if whole else array
