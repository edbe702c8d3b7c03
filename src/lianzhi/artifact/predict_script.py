"""`predict.py`: a small script in the artifact that needs NumPy and the runtime, and neither PyTorch nor Lianzhi.

One for images needs Pillow besides, one for texts the library `tokenizers`.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from lianzhi import files
from lianzhi.artifact.layout import ONNX, PREDICT, PREPROCESS
from lianzhi.errors import ArtifactError, TargetError, did_you_mean
from lianzhi.precisions import PRECISIONS

_TEMPLATES = {"image": "predict.py.tmpl", "text": "predict_text.py.tmpl"}
SCRIPTED = {
    "onnxruntime": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])\n'
        "run = lambda x: session.run(None, @FEED@)[0]",
    ),
    "openvino": (
        "import openvino",
        'settings = {"INFERENCE_PRECISION_HINT": "@PRECISION@"}\n'
        'model = openvino.Core().compile_model(str(HERE / "model.onnx"), "CPU", settings)\n'
        "run = lambda x: model(@FEED@)[0]",
    ),
}
_FEEDS = {
    ("onnxruntime", "image"): "{session.get_inputs()[0].name: x}",
    ("onnxruntime", "text"): "{item.name: x[item.name] for item in session.get_inputs()}",
    ("openvino", "image"): "[x]",
    ("openvino", "text"): "{item.get_any_name(): x[item.get_any_name()] for item in model.inputs}",
}
_HINTS = {"bf16": "bf16"}  # everything else computes in float32 what is float


def write_predict(folder: str | os.PathLike[str], *, runtime: str, precision: str = "f32") -> Path:
    """Write `predict.py` into an artifact folder that holds `model.onnx`; return its path.

    The script prints the five likeliest classes of each image or sentence, by `runtime` (``onnxruntime`` or ``openvino``) at
    `precision`, one of `lianzhi.precisions`.
    """
    if runtime not in SCRIPTED:
        raise TargetError(
            f"no predict.py can be written for runtime '{runtime}'{did_you_mean(runtime, SCRIPTED)}"
        )
    if precision not in PRECISIONS:
        raise TargetError(f"unknown precision '{precision}'{did_you_mean(precision, PRECISIONS)}")
    if not (Path(folder) / ONNX).is_file():
        raise ArtifactError(f"{folder}: predict.py needs {ONNX}, which is not there; export the model first")
    kind = _kind(Path(folder))
    template = resources.files("lianzhi.artifact").joinpath(_TEMPLATES[kind]).read_text("utf-8")
    imports, load = SCRIPTED[runtime]
    load = load.replace("@FEED@", _FEEDS[runtime, kind])
    text = template.replace("@IMPORT@", imports).replace("@LOAD@", load).replace("@RUNTIME@", runtime)
    return files.write_text(Path(folder) / PREDICT, text.replace("@PRECISION@", _HINTS.get(precision, "f32")))


def _kind(folder: Path) -> str:
    """What goes in, as the artifact's preprocessing says."""
    file = folder / PREPROCESS
    values = files.read_json(file) if file.is_file() else {}
    return "text" if isinstance(values, dict) and values.get("kind") == "text" else "image"
