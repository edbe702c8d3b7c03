"""A quantized model: the module with fake quantizers, its report, and its export."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lianzhi import deploy
from lianzhi.errors import DataError
from lianzhi.graph import TracedModule
from lianzhi.quantize.export import export_quantized
from lianzhi.quantize.table import CalibrationTable


@dataclass(frozen=True)
class QuantizedModel:
    """What `quantize` returns.

    `model` computes in PyTorch what the deployed file computes in integers, and can be trained further;
    `report` says, layer by layer, what quantization did; `export` writes the file for `target`. `storage` is the type
    of the weights where they are no integers.
    """

    model: TracedModule
    report: dict[str, Any]
    target: str
    example_inputs: Any = field(repr=False)
    dynamic_batch: bool = True
    table: CalibrationTable | None = field(default=None, repr=False)
    storage: str = ""

    @property
    def amax(self) -> dict[str, float]:
        """The largest magnitude of each quantized value, by its name in the captured graph."""
        found = self._table().ranges
        return {name: max(abs(low), abs(high)) for name, (low, high) in found.items()}

    def save_table(self, path: str | os.PathLike[str]) -> Path:
        """Write the calibration table, with which `quantize` does the same again without data."""
        return self._table().save(path)

    def _table(self) -> CalibrationTable:
        if self.table is None:
            raise DataError("activations are float: there is no calibration table")
        return self.table

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the ONNX file with Q/DQ nodes, int8 weights and int32 biases, and return its path."""
        return export_quantized(
            self.model,
            self.example_inputs,
            path,
            dynamic_batch=self.dynamic_batch,
            guard=deploy.quantized_like(self.target) != "tensorrt",
            storage=self.storage,
        )

    def __str__(self) -> str:
        from lianzhi.quantize.report import text

        return text(self.report)
