"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from lianzhi.deploy.precision import held_precision
from lianzhi.deploy.runtime import Runtime, available_threads, model_file, registry
from lianzhi.deploy.session import Port, Session
from lianzhi.errors import DataError, TargetError

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession(Session):
    """An `InferenceSession` with its thread count set."""

    def __init__(self, session: Any, *, precision: str, threads: int) -> None:
        strange = [item for item in session.get_inputs() if item.type not in _TYPES]
        if strange:
            raise TargetError(
                f"the model's input '{strange[0].name}' is a {strange[0].type}; give it tensors of numbers"
            )
        ports = [
            Port(
                item.name,
                np.dtype(_TYPES[item.type]),
                tuple(size if isinstance(size, int) else None for size in item.shape),
            )
            for item in session.get_inputs()
        ]
        names = [item.name for item in session.get_outputs()]
        super().__init__(
            runtime="onnxruntime", precision=precision, threads=threads, inputs=ports, outputs=names
        )
        self.session = session

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run once."""
        try:
            results: list[np.ndarray] = self.session.run(list(self.outputs), feeds)
        except Exception as error:
            shapes = {name: tuple(value.shape) for name, value in feeds.items()}
            raise DataError(
                f"onnxruntime cannot run inputs of shapes {shapes}: {first_line(error)}"
            ) from error
        return results


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class OnnxRuntime(Runtime):
    """ONNX Runtime's CPU provider: float32 files, int8 files with Q/DQ nodes, and smaller weights alone."""

    name = quantized_like = "onnxruntime"
    package = "onnxruntime"
    extra = ""

    def offers(self, held: str = "f32") -> list[str]:
        """The one that the file holds."""
        return [held]

    def precisions(self, path: Any) -> list[str]:
        """The file's own."""
        return self.offers(held_precision(model_file(path)))

    def load(
        self, path: Any, *, precision: str | None = None, threads: int | None = None
    ) -> OnnxRuntimeSession:
        """Load an ONNX file."""
        self.require()
        import onnxruntime

        file = model_file(path)
        precision = self.chosen_precision(file, precision)
        threads = available_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        onnxruntime.disable_telemetry_events()
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise TargetError(f"{file}: onnxruntime cannot load it: {first_line(error)}") from error
        return OnnxRuntimeSession(session, precision=precision, threads=threads)


registry.register("onnxruntime", "ONNX files on the CPU by ONNX Runtime: float32, int8")(OnnxRuntime())
