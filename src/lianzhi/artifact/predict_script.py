"""`predict.py`: a small script in the artifact that needs NumPy and the runtime, and neither PyTorch nor Lianzhi."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from lianzhi import files
from lianzhi.artifact.layout import ONNX, PREDICT
from lianzhi.errors import ArtifactError, TargetError, did_you_mean

_RUNTIMES = {
    "onnxruntime": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])\n'
        "run = lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]",
    ),
    "openvino": (
        "import openvino",
        'settings = {"INFERENCE_PRECISION_HINT": "@PRECISION@"}\n'
        'model = openvino.Core().compile_model(str(HERE / "model.onnx"), "CPU", settings)\n'
        "run = lambda x: model([x])[0]",
    ),
}
_HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}


def write_predict(folder: str | os.PathLike[str], *, runtime: str, precision: str = "f32") -> Path:
    """Write `predict.py` into an artifact folder that holds `model.onnx`; return its path.

    The script prints the five likeliest classes of each image, by `runtime` (``onnxruntime`` or ``openvino``) at
    `precision` (f32, bf16, int8).
    """
    if runtime not in _RUNTIMES:
        raise TargetError(
            f"no predict.py can be written for runtime '{runtime}'{did_you_mean(runtime, _RUNTIMES)}"
        )
    if precision not in _HINTS:
        raise TargetError(f"unknown precision '{precision}'{did_you_mean(precision, _HINTS)}")
    if not (Path(folder) / ONNX).is_file():
        raise ArtifactError(f"{folder}: predict.py needs {ONNX}, which is not there; export the model first")
    template = resources.files("lianzhi.artifact").joinpath("predict.py.tmpl").read_text("utf-8")
    imports, load = _RUNTIMES[runtime]
    text = template.replace("@IMPORT@", imports).replace("@LOAD@", load).replace("@RUNTIME@", runtime)
    return files.write_text(Path(folder) / PREDICT, text.replace("@PRECISION@", _HINTS[precision]))
