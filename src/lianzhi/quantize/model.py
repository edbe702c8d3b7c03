"""A quantized model: the module with fake quantizers, its report, and its export."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lianzhi.graph import TracedModule
from lianzhi.quantize.export import export_quantized


@dataclass(frozen=True)
class QuantizedModel:
    """What `quantize` returns.

    `model` computes in PyTorch what the deployed file computes in integers, and can be trained further;
    `report` says, layer by layer, what quantization did; `export` writes the file for `target`.
    """

    model: TracedModule
    report: dict[str, Any]
    target: str
    example_inputs: Any = field(repr=False)
    dynamic_batch: bool = True

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the ONNX file with Q/DQ nodes, int8 weights and int32 biases, and return its path."""
        return export_quantized(
            self.model,
            self.example_inputs,
            path,
            dynamic_batch=self.dynamic_batch,
            guard=self.target != "tensorrt",
        )

    def __str__(self) -> str:
        from lianzhi.quantize.report import text

        return text(self.report)
