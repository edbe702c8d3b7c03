"""The target `tensorrt`: engines are built here, and run where there is a GPU."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from lianzhi.deploy.onnx import copy_onnx
from lianzhi.deploy.precision import held_precision
from lianzhi.deploy.runtime import Runtime, model_file, registry
from lianzhi.deploy.session import Session
from lianzhi.deploy.tensorrt.builder import build, build_plan, engine_name
from lianzhi.deploy.tensorrt.library import (
    RTX,
    RTX_DISTRIBUTION,
    gpu_capability,
    has_gpu,
    open_library,
)
from lianzhi.deploy.tensorrt.session import TensorRtSession
from lianzhi.errors import TargetError


class TensorRt(Runtime):
    """Engines for NVIDIA's GPUs are built on any machine, by TensorRT-RTX; where there is a GPU they run."""

    name = quantized_like = "tensorrt"
    package = RTX
    extra = "tensorrt"
    executes = False

    def version(self) -> str:
        """The library's version, or "" where it is not installed."""
        return importlib.metadata.version(RTX_DISTRIBUTION) if self.installed() else ""

    def offers(self, held: str = "f32") -> list[str]:
        """The one that the file holds."""
        return [held]

    def precisions(self, path: Any) -> list[str]:
        """The file's own."""
        return self.offers(held_precision(model_file(path)))

    def export(self, source: Path, folder: Path, **options: Any) -> dict[str, Any]:
        """Copy the ONNX file, have NVIDIA's parser check it, and build an engine beside it.

        The option `compute_capability` says for which processors ("8.9"). Without the library the file is written
        as it is, and the notes say so. Raises `TargetError` for a file that the parser refuses.
        """
        copy_onnx(source, folder / "model.onnx")
        precision = self.precisions(folder / "model.onnx")[0]
        names = sorted(item.name for item in folder.iterdir() if item.name.startswith("model.onnx"))
        if not self.installed():
            note = "TensorRT is not installed here, so the file was not checked by its parser, and there is no engine"
            note += "; pip install 'lianzhi[tensorrt]'"
            return {"files": names, "precision": precision, "loaded": False, "notes": [note]}
        name = engine_name(open_library())
        report = build(source, folder / name, **options)
        return {
            "files": [*names, name],
            "precision": precision,
            "loaded": False,
            "notes": [f"model.onnx is taken by NVIDIA's parser; {name} was {report}"],
            "build": report.to_dict(),
        }

    def load(self, path: Any, *, precision: str | None = None, threads: int | None = None) -> Session:
        """Build an engine for the GPU that is here, and run it there; `threads` is of no account.

        Raises `TargetError` without an NVIDIA GPU: nothing is executed then, and nothing is claimed.
        """
        self.require()
        file = model_file(path)
        precision = self.chosen_precision(file, precision)
        if not has_gpu():
            raise TargetError(
                "target 'tensorrt' builds engines and does not run them on this machine (no NVIDIA GPU); build one "
                "with lianzhi export MODEL --target tensorrt, and evaluate the same file with --runtime onnxruntime"
            )
        library = open_library()
        plan, _ = build_plan(library, file, gpu_capability())
        return TensorRtSession(library, plan, precision=precision)


registry.register(
    "tensorrt", "engines for NVIDIA GPUs by TensorRT: built and checked; they run where there is a GPU"
)(TensorRt())
