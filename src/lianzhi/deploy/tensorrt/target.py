"""The target `tensorrt`: engines are built here, and run where there is a GPU."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from lianzhi.deploy.inspection import is_quantized
from lianzhi.deploy.runtime import Runtime, model_file, registry
from lianzhi.deploy.session import Session
from lianzhi.deploy.tensorrt.library import RTX, RTX_DISTRIBUTION
from lianzhi.errors import TargetError


class TensorRt(Runtime):
    """TensorRT-RTX builds engines for NVIDIA's GPUs on any machine; this machine does not run them."""

    name = "tensorrt"
    package = RTX
    extra = "tensorrt"
    executes = False

    def version(self) -> str:
        """The library's version, or "" where it is not installed."""
        return importlib.metadata.version(RTX_DISTRIBUTION) if self.installed() else ""

    def offers(self, *, quantized: bool) -> list[str]:
        """Int8 for a model with quantizers, else float32."""
        return ["int8"] if quantized else ["f32"]

    def precisions(self, path: Any) -> list[str]:
        """The file's own."""
        return self.offers(quantized=is_quantized(model_file(path)))

    def load(self, path: Any, *, precision: str | None = None, threads: int | None = None) -> Session:
        """Refuse: nothing is executed without a GPU, and nothing is claimed."""
        self.require()
        raise TargetError(
            "target 'tensorrt' builds engines and does not run them on this machine (no NVIDIA GPU); build one with "
            "lianzhi export MODEL --target tensorrt, and evaluate the same file with --runtime onnxruntime"
        )


registry.register("tensorrt", "engines for NVIDIA GPUs by TensorRT-RTX: built and checked, not executed")(
    TensorRt()
)
