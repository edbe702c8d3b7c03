"""What quantizes beside ours: NNCF's post-training quantization for OpenVINO, and ONNX Runtime's static tool."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lianzhi.deploy import Session
from lianzhi.deploy.openvino import OpenVinoSession
from lianzhi.deploy.runtime import available_threads


def arrays(batch: Any) -> dict[str, np.ndarray]:
    """A calibration batch by the names of the file's inputs."""
    if isinstance(batch, Tensor):
        return {"input": batch.numpy()}
    return {name: value.numpy() for name, value in batch.items()}


def onnxruntime_static(source: Path, output: Path, calibration: list[Any]) -> Path:
    """`quantize_static` after its own pre-processing: Q/DQ, uint8 activations, int8 weights a channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """The batches in order."""

        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next batch."""
            batch = next(self.left, None)
            return None if batch is None else arrays(batch)

    prepared = output.with_name("prepared.onnx")
    with quietly():
        # its symbolic shape inference gives up on a text's free length, and leaves a file in the current folder
        text = not isinstance(calibration[0], Tensor)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=text)
        quantize_static(
            str(prepared),
            str(output),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    return output


def nncf(source: Path, output: Path, calibration: list[Any], *, transformer: bool) -> Path:
    """`nncf.quantize` on OpenVINO's form of the float file; every sample counts."""
    with quietly():
        import nncf as library
        import openvino

        model = openvino.Core().read_model(str(source))
        kind = library.ModelType.TRANSFORMER if transformer else None
        made = library.quantize(
            model, library.Dataset(calibration, arrays), model_type=kind, subset_size=len(calibration)
        )
        openvino.save_model(made, str(output), compress_to_fp16=False)
    return output


def open_ir(path: Path) -> Session:
    """A file of OpenVINO's own, with the configuration that Lianzhi gives OpenVINO."""
    import openvino

    threads = available_threads()
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    return OpenVinoSession(compiled, precision="int8", threads=threads)


@contextlib.contextmanager
def quietly() -> Any:
    """Keep progress bars and logs of the peers off the table."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
