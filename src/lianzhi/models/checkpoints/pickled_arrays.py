"""NumPy's arrays in a pickle, as tensors: what OneFlow after 0.9 keeps in its checkpoints of one file.

An array is the call ``_reconstruct(ndarray, (0,), b"b")`` and then a state ``(1, shape, type, in Fortran's order, bytes)``;
its type is the call ``dtype("f4", False, True)`` and then a state ``(3, "<", None, None, None, -1, -1, 0)``. Nothing is called:
only these very arguments are taken, and a length is compared with its bytes before a tensor is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_DIMS = 32  # NumPy's own limit
TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1", "c8", "c16")
BFLOAT16 = 11  # OneFlow's number of the type, whose values NumPy holds as float32

CLASSES = {("numpy", "ndarray")}


class Array:
    """An array; its values come with its state."""

    __slots__ = ("tensor",)

    def __init__(self) -> None:
        self.tensor: Tensor | None = None

    def build(self, state: Any) -> None:
        """Take the values. Raises `ValueError` with what is wrong."""
        if type(state) is not tuple or len(state) != 5 or self.tensor is not None:
            raise ValueError("an array's state is not (1, shape, type, order, values)")
        version, shape, kind, by_columns, values = state
        if version != 1 or type(by_columns) is not bool or not isinstance(values, (bytes, memoryview)):
            raise ValueError("an array's state is not (1, shape, type, order, values)")
        if type(kind) is not Kind or not kind.little:
            raise ValueError("an array's type is none of little-endian numbers")
        if type(shape) is not tuple or len(shape) > MOST_DIMS or not all(type(size) is int for size in shape):
            raise ValueError("an array's shape is no tuple of numbers")
        dtype = np.dtype(kind.code)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(values):
            raise ValueError(f"an array of shape {shape!r:.80} and type {dtype} has {len(values):,} bytes")
        flat = np.frombuffer(values, dtype)
        if dtype == np.bool_ and flat.size and flat.view(np.uint8).max() > 1:
            raise ValueError("a bool is neither 0 nor 1")
        shaped = flat.reshape(shape, order="F" if by_columns else "C")
        self.tensor = torch.from_numpy(np.array(shaped, order="C"))


class Kind:
    """The type of an array's values."""

    __slots__ = ("code", "little")

    def __init__(self, code: str) -> None:
        self.code, self.little = code, False

    def build(self, state: Any) -> None:
        """Take the order of bytes. Raises `ValueError` for any but little-endian."""
        if type(state) is not tuple or state[:1] != (3,) or state[1:2] not in (("<",), ("|",)):
            raise ValueError("an array's values are not little-endian")
        self.little = True


class Place:
    """The type of a OneFlow tensor, or where it lay: kept as its state, which nobody needs but for bfloat16."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def build(self, state: Any) -> None:
        """Keep it."""
        self.state = state


PLACES = {
    ("oneflow._oneflow_internal", "dtype"),
    ("oneflow._oneflow_internal", "placement"),
    ("oneflow._oneflow_internal.sbp", "sbp"),
}


def _array(arguments: Any) -> Array:
    if type(arguments) is not tuple or len(arguments) != 3 or arguments[1:] != ((0,), b"b"):
        raise ValueError("with other arguments than NumPy writes")
    if getattr(arguments[0], "name", None) not in CLASSES:
        raise ValueError("of another class than ndarray")
    return Array()


def _kind(arguments: Any) -> Kind:
    if type(arguments) is not tuple or arguments[1:] != (False, True) or type(arguments[0]) is not str:
        raise ValueError("with other arguments than NumPy writes")
    if arguments[0] not in TYPES:
        raise ValueError(f"for values of type '{arguments[0]:.40}'")
    return Kind(arguments[0])


CALLS: dict[tuple[str, str], Callable[[Any], Array | Kind]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,  # since NumPy 2
    ("numpy", "dtype"): _kind,
}


def tensor_of(state: dict[Any, Any]) -> Tensor | None:
    """The values in the state of a OneFlow tensor that holds them itself; None where it is another state."""
    array, kind = state.get("data"), state.get("dtype")
    if not {"data", "dtype"} <= state.keys() <= {"data", "dtype", "device", "placement", "sbp"}:
        return None
    if type(array) is not Array or type(kind) is not Place or array.tensor is None:
        return None
    narrow = kind.state == BFLOAT16 and array.tensor.dtype == torch.float32
    return array.tensor.to(torch.bfloat16) if narrow else array.tensor
