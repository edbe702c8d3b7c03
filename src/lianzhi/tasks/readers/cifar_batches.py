"""The "python version" of CIFAR: pickled dicts of bytes, read without running what a pickle can run.

https://www.cs.toronto.edu/~kriz/cifar.html: ``data`` is uint8 of shape (samples, 3072), red, green and blue planes
of 32×32 in turn; ``labels`` (CIFAR-10) or ``fine_labels`` (CIFAR-100) are lists. The unpickler knows only the names
with which NumPy writes an array, and gives them stand-ins that hold the bytes; it refuses every other name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lianzhi.errors import DataError
from lianzhi.tasks import cache
from lianzhi.tasks.part import Part, as_labels
from lianzhi.tasks.stores import PixelStore

LIMIT = 2**30


class _Array:
    """Stands in for ``numpy.ndarray``: keeps the state that the pickle gives it."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Type:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("an encoding other than latin1")
    return text.encode("latin1")


_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a CIFAR file does not need")
        return _ALLOWED[module, name]


def read_dict(file: Path) -> dict[str, Any]:
    """The pickled dict, its keys as text; arrays stay stand-ins.

    Raises:
        DataError: the file is missing, damaged, or holds anything beyond dicts, lists, numbers and arrays.
    """
    try:
        if file.stat().st_size > LIMIT:
            raise DataError(f"{file}: more than 1 GiB; a CIFAR file is 30 to 160 MB")
        with file.open("rb") as stream:
            values = _Restricted(stream, encoding="bytes").load()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; get the archive again") from None
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{file}: refused: not a CIFAR batch ({error}); get the archive again") from None
    if not isinstance(values, dict):
        raise DataError(f"{file}: not a CIFAR batch: it holds a {type(values).__name__}, not a dict")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in values.items()
    }


def read_part(files: list[Path], label: str) -> Part:
    """One part of several files, as images of 3×32×32."""
    images, labels = [], []
    for file in files:
        values = read_dict(file)
        for key in ("data", label):
            if key not in values:
                raise DataError(f"{file}: has no '{key}' among {', '.join(values)}")
        images.append(_pixels(values["data"], file))
        if not isinstance(values[label], list):
            raise DataError(
                f"{file}: '{label}' is a {type(values[label]).__name__}, not a list of class numbers"
            )
        labels.append(as_labels(values[label], str(file)))
    pixels = np.concatenate(images).reshape(-1, 3, 32, 32)
    return Part(PixelStore(pixels, cache.digest_files(files)), np.concatenate(labels), str(files[0].parent))


def _pixels(value: Any, file: Path) -> NDArray[np.uint8]:
    """The bytes of an array's stand-in, if they are uint8 of shape (samples, 3072)."""
    state = value.state if isinstance(value, _Array) else ()
    if len(state) != 5 or not isinstance(state[2], _Type) or not isinstance(state[4], bytes):
        raise DataError(f"{file}: 'data' is not a NumPy array of bytes")
    shape, kind, fortran, data = state[1], state[2].code, state[3], state[4]
    if kind not in ("u1", b"u1") or not isinstance(shape, tuple) or len(shape) != 2 or shape[1] != 3072:
        raise DataError(f"{file}: 'data' is {kind} of shape {shape}; expected u1 of shape (samples, 3072)")
    if len(data) != shape[0] * 3072:
        raise DataError(
            f"{file}: 'data' has {len(data):,} bytes, and its shape {shape} needs {shape[0] * 3072:,}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")
