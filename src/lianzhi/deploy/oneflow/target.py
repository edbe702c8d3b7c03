"""The target `oneflow`: a module's weights and source for OneFlow, which runs them by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from lianzhi import files
from lianzhi.deploy.oneflow.code import Source, write_source
from lianzhi.deploy.oneflow.writing import write
from lianzhi.deploy.runtime import Runtime, registry
from lianzhi.errors import TargetError
from lianzhi.graph import are_tokens, capture, moved, on_cpu

WEIGHTS, MODEL = "weights", "model.py"


class OneFlow(Runtime):
    """Files for OneFlow are written here, without it; they run where it is."""

    name = "oneflow"
    package = "oneflow"
    extra = ""
    takes_onnx = False
    executes = False
    stands_in = "pytorch"

    def offers(self, held: str = "f32") -> list[str]:
        """Float32, whatever the model holds."""
        return ["f32"]

    def precisions(self, path: Any) -> list[str]:
        """Float32."""
        return ["f32"]

    def require(self) -> NoReturn:
        """Nothing is run by OneFlow here, whether it is installed or not."""
        raise TargetError(
            "target 'oneflow' writes models for OneFlow and does not run them on this machine; write one with lianzhi export "
            "MODEL --target oneflow and run its run_in_oneflow.py where OneFlow is, or evaluate the same weights with "
            "--runtime pytorch"
        )

    def load(self, path: Any, *, precision: str | None = None, threads: int | None = None) -> NoReturn:
        """Refused, as `require` says."""
        self.require()

    def check_module(self, model: nn.Module, example_inputs: Any) -> None:
        """Raise the `TargetError` or `GraphError` that `export_module` would. Writes nothing."""
        _source(model, example_inputs)

    def export_module(self, model: nn.Module, example_inputs: Any, folder: Path) -> dict[str, Any]:
        """Write ``model.py`` and the checkpoint ``weights/``; nothing for a model that has no OneFlow source.

        Raises:
            TargetError: the model computes something that OneFlow has not, or is quantized.
            GraphError: it cannot be captured.
        """
        source = _source(model, example_inputs)
        write(source.tensors, folder / WEIGHTS)
        files.write_text(folder / MODEL, source.text)
        return {"files": [MODEL, WEIGHTS], "precision": "f32", "loaded": False, "notes": []}

    def export(self, source: Path, folder: Path, **options: Any) -> dict[str, Any]:
        """OneFlow's source is written of a module's graph, and not of an ONNX file."""
        raise TargetError(
            f"{source}: an ONNX file cannot be written for oneflow, whose source is made of the module; give the artifact "
            f"folder or the .lzc file that it comes from"
        )


def _source(model: nn.Module, example_inputs: Any) -> Source:
    """The model's source, with a free batch, and for tokens a free length."""
    inputs = moved(example_inputs, torch.device("cpu"))
    return write_source(capture(on_cpu(model), inputs, dynamic_length=are_tokens(inputs)))


registry.register(
    "oneflow", "source and checkpoint for OneFlow, from a module: written here, run where OneFlow is"
)(OneFlow())
