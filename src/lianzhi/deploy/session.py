"""A loaded model that is called like a function, whatever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lianzhi.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Port:
    """One input of a file: its name, NumPy type, and shape (None where a dimension is free)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class Session(ABC):
    """A model in a runtime: call it with inputs, get tensors.

    Inputs are a tensor or array, a tuple of them in the model's order, or a dict of them by name. The
    result is a tensor, or a tuple of tensors where the model has several outputs.
    """

    def __init__(
        self, *, runtime: str, precision: str, threads: int, inputs: Sequence[Port], outputs: Sequence[str]
    ) -> None:
        self.runtime = runtime
        self.precision = precision
        self.threads = threads
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    @abstractmethod
    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run once on arrays by name; return one array an output, not shared with the runtime."""

    def __call__(self, inputs: Any) -> Any:
        """Run once."""
        results = [torch.from_numpy(np.asarray(value)) for value in self.run(feeds(inputs, self.inputs))]
        return results[0] if len(results) == 1 else tuple(results)

    def by_name(self, inputs: Any) -> Any:
        """Run once, and give `logits` among several outputs their name: a dict, which takes places as a tuple does, too."""
        found = self(inputs)
        if isinstance(found, tuple) and "logits" in self.outputs and len(set(self.outputs)) == len(found):
            return Outputs(zip(self.outputs, found, strict=True))
        return found

    def __repr__(self) -> str:
        names = ", ".join(port.name for port in self.inputs)
        return f"Session({self.runtime}, {self.precision}, {self.threads} threads, inputs: {names})"


class Outputs(dict[str, Any]):
    """Outputs by name, and by place as in the tuple that they come from.

    >>> Outputs(logits=1, states=2)[1]
    2
    """

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, (int, slice)) else super().__getitem__(key)


def feeds(inputs: Any, ports: Sequence[Port]) -> dict[str, np.ndarray]:
    """Arrays by name for a file's inputs, with types widened or narrowed within their kind.

    >>> ports = [Port("input", np.dtype("float32"), (None, 2))]
    >>> feeds(torch.zeros(1, 2, dtype=torch.float64), ports)["input"].dtype
    dtype('float32')
    >>> feeds({"imput": torch.zeros(1, 2)}, ports)
    Traceback (most recent call last):
        ...
    lianzhi.errors.DataError: the model has no input 'imput'; did you mean 'input'?
    """
    if isinstance(inputs, Mapping):
        given = dict(inputs)
        names = [port.name for port in ports]
        for name in given:
            if name not in names:
                raise DataError(f"the model has no input '{name}'{did_you_mean(str(name), names)}")
        missing = [name for name in names if name not in given]
        if missing:
            raise DataError(f"the model's input '{missing[0]}' is not given; it takes {', '.join(names)}")
    else:
        values = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        if len(values) != len(ports):
            takes = ", ".join(port.name for port in ports)
            raise DataError(f"{len(values)} inputs are given, and the model takes {len(ports)}: {takes}")
        given = {port.name: value for port, value in zip(ports, values, strict=True)}
    return {port.name: _array(given[port.name], port) for port in ports}


def _array(value: Any, port: Port) -> np.ndarray:
    """One input as a contiguous array of the port's type, its shape checked."""
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype != port.dtype:
        if array.dtype.kind not in _ACCEPTED.get(port.dtype.kind, port.dtype.kind):
            raise DataError(f"input '{port.name}' has type {array.dtype}, and the model takes {port.dtype}")
        array = array.astype(port.dtype)
    fits = len(array.shape) == len(port.shape) and all(
        free is None or size == free for size, free in zip(array.shape, port.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in port.shape)
        raise DataError(f"input '{port.name}' has shape {tuple(array.shape)}, and the model takes ({wanted})")
    return np.ascontiguousarray(array).reshape(array.shape)  # it makes a vector of a scalar


_ACCEPTED = {"f": "f", "i": "iu", "u": "iu", "b": "b"}
