"""`predict.py`: a small script in the artifact that needs NumPy and the runtime, and neither PyTorch nor Lianzhi.

The one for OneFlow is called `run_in_oneflow.py`, and is otherwise the same.

One for images needs Pillow besides, one for texts the library `tokenizers`.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from lianzhi import files
from lianzhi.artifact.layout import IN_ONEFLOW, ONNX, PREDICT, PREPROCESS
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
    "oneflow": (
        "import oneflow as flow\nfrom model import Model",
        "model = Model()\n"
        'model.load_state_dict(flow.load(str(HERE / "weights")))\n'
        "model.eval()\n\n"
        "def run(x):\n"
        '    """The logits of a batch of one: the first output, where none is called so."""\n'
        "    with flow.no_grad():\n"
        "        found = model(@FEED@)\n"
        "    if isinstance(found, dict):\n"
        '        found = found["logits"] if "logits" in found else list(found.values())\n'
        "    return (found[0] if isinstance(found, (tuple, list)) else found).numpy()",
    ),
}
_NEEDS = {"oneflow": (IN_ONEFLOW, "model.py")}  # the script's name, and the file that it cannot do without
NO_SCRIPT = "no script was written that runs the model: its preprocessing is not known, or its target is another package's"
_FEEDS = {
    ("onnxruntime", "image"): "{session.get_inputs()[0].name: x}",
    ("onnxruntime", "text"): "{item.name: x[item.name] for item in session.get_inputs()}",
    ("oneflow", "image"): "flow.tensor(x)",
    ("oneflow", "text"): "**{name: flow.tensor(value) for name, value in x.items()}",
    ("openvino", "image"): "[x]",
    ("openvino", "text"): "{item.get_any_name(): x[item.get_any_name()] for item in model.inputs}",
}
_HINTS = {"bf16": "bf16"}  # everything else computes in float32 what is float


def write_predict(folder: str | os.PathLike[str], *, runtime: str, precision: str = "f32") -> Path:
    """Write `predict.py` into an artifact folder that holds `model.onnx`; return its path.

    The script prints the five likeliest classes of each image or sentence, by `runtime` (``onnxruntime`` or ``openvino``, or
    ``oneflow``: `run_in_oneflow.py` beside `model.py` and `weights/`) at `precision`, one of `lianzhi.precisions`.
    """
    if runtime not in SCRIPTED:
        raise TargetError(
            f"no predict.py can be written for runtime '{runtime}'{did_you_mean(runtime, SCRIPTED)}"
        )
    if precision not in PRECISIONS:
        raise TargetError(f"unknown precision '{precision}'{did_you_mean(precision, PRECISIONS)}")
    script, needed = _NEEDS.get(runtime, (PREDICT, ONNX))
    if not (Path(folder) / needed).is_file():
        raise ArtifactError(f"{folder}: {script} needs {needed}, which is not there; export the model first")
    kind = _kind(Path(folder))
    template = resources.files("lianzhi.artifact").joinpath(_TEMPLATES[kind]).read_text("utf-8")
    imports, load = SCRIPTED[runtime]
    load = load.replace("@FEED@", _FEEDS[runtime, kind])
    text = template.replace("@IMPORT@", imports).replace("@LOAD@", load).replace("@RUNTIME@", runtime)
    text = text.replace("@SCRIPT@", script)
    return files.write_text(Path(folder) / script, text.replace("@PRECISION@", _HINTS.get(precision, "f32")))


def _kind(folder: Path) -> str:
    """What goes in, as the artifact's preprocessing says."""
    file = folder / PREPROCESS
    values = files.read_json(file) if file.is_file() else {}
    return "text" if isinstance(values, dict) and values.get("kind") == "text" else "image"
