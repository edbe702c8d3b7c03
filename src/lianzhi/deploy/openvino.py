"""OpenVINO on the CPU. The precision of float operations is always set, never left to the library.

On CPUs with bf16 hardware OpenVINO computes a float model in bf16 unless told otherwise: a latency without
its precision would compare different things.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from lianzhi.deploy.onnxruntime import first_line
from lianzhi.deploy.precision import held_precision
from lianzhi.deploy.runtime import Runtime, available_threads, model_file, registry
from lianzhi.deploy.session import Port, Session
from lianzhi.errors import DataError, TargetError

_HINTS = {"bf16": "bf16"}  # everything else computes in float32 what is float


class OpenVinoSession(Session):
    """One infer request of a compiled model."""

    def __init__(self, compiled: Any, *, precision: str, threads: int) -> None:
        ports = [
            Port(
                item.get_any_name(),
                np.dtype(item.get_element_type().to_dtype()),
                tuple(None if size.is_dynamic else size.get_length() for size in item.get_partial_shape()),
            )
            for item in compiled.inputs
        ]
        names = [item.get_any_name() for item in compiled.outputs]
        super().__init__(
            runtime="openvino", precision=precision, threads=threads, inputs=ports, outputs=names
        )
        self.request = compiled.create_infer_request()

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run once."""
        try:
            results = self.request.infer(feeds, share_inputs=True, share_outputs=False)
        except Exception as error:
            shapes = {name: tuple(value.shape) for name, value in feeds.items()}
            raise DataError(f"openvino cannot run inputs of shapes {shapes}: {first_line(error)}") from error
        return [results[index] for index in range(len(self.outputs))]


def reason(error: Exception) -> str:
    """What the library says, without the places in its own source that it begins with.

    >>> reason(RuntimeError("Exception from src/core.cpp:132:\\nCheck 'false' failed at a.cpp:1:\\nThe rank has to be known"))
    'The rank has to be known'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API"))]
    return " ".join(told)[:300] or first_line(error)


@lru_cache(maxsize=1)
def _core() -> Any:
    import openvino

    return openvino.Core()


class OpenVino(Runtime):
    """OpenVINO's CPU plug-in: float32, bf16 where the hardware has it, and int8 files with Q/DQ nodes."""

    name = quantized_like = "openvino"
    package = "openvino"
    extra = "openvino"

    def offers(self, held: str = "f32") -> list[str]:
        """The one that the file holds (what is float in it runs in float32); of a float file bf16 as well."""
        if held != "f32":
            return [held]
        return ["f32", "bf16"] if self._has_bf16() else ["f32"]

    def precisions(self, path: Any) -> list[str]:
        """What is offered for a file, by what it holds."""
        return self.offers(held_precision(model_file(path)))

    def _has_bf16(self) -> bool:
        if not self.installed():
            return False
        return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def load(self, path: Any, *, precision: str | None = None, threads: int | None = None) -> OpenVinoSession:
        """Load an ONNX file."""
        self.require()
        file = model_file(path)
        precision = self.chosen_precision(file, precision)
        threads = available_threads(threads)
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32"),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            compiled = _core().compile_model(str(file), "CPU", config)
        except Exception as error:
            raise TargetError(f"{file}: openvino cannot load it: {reason(error)}") from error
        return OpenVinoSession(compiled, precision=precision, threads=threads)


registry.register("openvino", "ONNX files on the CPU by OpenVINO: float32, bf16 (hardware permitting), int8")(
    OpenVino()
)
