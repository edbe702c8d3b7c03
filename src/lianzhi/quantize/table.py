"""Calibration tables: the ranges that were seen, kept in a file, so that a model is quantized again without data.

A table is JSON. It says of which model (its float tensors), data, target, observer and rewriting techniques it is,
and is refused for another: ranges of other weights are wrong without looking wrong.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lianzhi import files
from lianzhi.errors import DataError, LianzhiError

FORMAT = 1
Range = tuple[float, float]


@dataclass(frozen=True)
class CalibrationTable:
    """Ranges by the name of the value in the captured graph, and what they are of.

    `model` and `data` are fingerprints, `techniques` those that rewrote the model before it was observed.
    """

    target: str
    observer: dict[str, Any]
    techniques: list[dict[str, Any]]
    model: str
    data: str
    samples: int
    ranges: dict[str, Range]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as JSON, whole or not at all, and return its path."""
        return files.write_json(Path(path), {"format": FORMAT, "kind": "calibration table", **asdict(self)})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CalibrationTable:
        """Read a table. Raises `DataError` for a file that is none, is damaged, or is of a newer format."""
        try:
            content = files.read_json(Path(path))
        except (LianzhiError, OSError) as error:
            raise DataError(f"{path}: the calibration table cannot be read ({error})") from None
        if not isinstance(content, dict) or content.get("kind") != "calibration table":
            raise DataError(
                f"{path}: not a calibration table; save one with quantized.save_table(path). "
                f"Of a cache of TensorRT table_from_cache makes one"
            )
        if content.get("format") != FORMAT:
            raise DataError(
                f"{path}: a calibration table of format {content.get('format')}, and this version reads {FORMAT}; "
                f"calibrate again"
            )
        try:
            return cls._checked(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: the calibration table is damaged ({type(error).__name__}: {error}); calibrate again"
            ) from None

    @classmethod
    def _checked(cls, content: dict[str, Any]) -> CalibrationTable:
        ranges = {str(name): _range(str(name), bounds) for name, bounds in content["ranges"].items()}
        techniques, observer = content["techniques"], content["observer"]
        if not isinstance(observer, dict) or not isinstance(techniques, list):
            raise TypeError("observer and techniques are of another kind")
        texts = [content[key] for key in ("target", "model", "data")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("target, model and data are texts")
        target, model, data = texts
        return cls(target, observer, techniques, model, data, int(content["samples"]), ranges)

    def check(
        self,
        path: str | os.PathLike[str],
        *,
        target: str,
        techniques: list[dict[str, Any]],
        model: str,
        data: str | None,
        names: list[str],
    ) -> None:
        """Raise `DataError` unless the table is of this model, target and, where there are some, data."""
        wanted = {"target": target, "techniques": techniques, "model": model}
        if self.data:  # one that was made of a cache does not know its data
            wanted["data"] = data or self.data
        for key, value in wanted.items():
            if getattr(self, key) != value:
                shown = "" if key in ("model", "data") else f": {getattr(self, key)!r}, and not {value!r}"
                raise DataError(f"{path}: the calibration table is of another {key}{shown}; calibrate again")
        missing = [name for name in names if name not in self.ranges]
        if missing:
            raise DataError(
                f"{path}: the calibration table has no range for '{missing[0]}' ({len(missing)} are missing); "
                f"calibrate again with the same options"
            )


Given = str | os.PathLike[str] | CalibrationTable


def shown(given: Given) -> str:
    """What a message or a report calls a table: its path, or where its ranges are from."""
    return (
        f"ranges by {given.observer.get('name')}" if isinstance(given, CalibrationTable) else os.fspath(given)
    )


def _range(name: str, bounds: Any) -> Range:
    low, high = (float(value) for value in bounds)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"the range of '{name}' is {low}…{high}")
    return low, high


def of_data(batches: list[list[Any]]) -> str:
    """A fingerprint of calibration batches, in order.

    >>> of_data([[torch.zeros(2)]]) == of_data([[torch.zeros(1)], [torch.zeros(1)]])
    False
    """
    digest = hashlib.sha256()
    for batch in batches:
        for value in batch:
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview | bytes:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(plain.view(torch.uint8).numpy()) if plain.numel() else np.empty(0, np.uint8).tobytes()
