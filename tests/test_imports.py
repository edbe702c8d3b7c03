"""Importing: quick, without optional libraries, in any order; and every promised name is there and works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lianzhi

HEAVY = {
    *("accelerate", "datasets", "huggingface_hub", "matplotlib", "nncf", "onnx", "onnx_ir", "onnxruntime"),
    *("onnxscript", "openvino", "pandas", "PIL", "pyarrow", "scipy", "sklearn", "tensorrt", "tensorrt_rtx"),
    *("timm", "tokenizers", "torchvision", "transformers"),
}

TIMED = """
import json, sys, time
import torch
before, start = set(sys.modules), time.process_time()
import lianzhi
for name in lianzhi.__all__:
    getattr(lianzhi, name)
print(json.dumps({"seconds": time.process_time() - start, "new": sorted(set(sys.modules) - before)}))
"""

ANY_ORDER = """
import importlib, pkgutil, random, sys
import lianzhi.errors
names = [info.name for info in pkgutil.walk_packages(sys.modules["lianzhi"].__path__, "lianzhi.")]
names = [name for name in names if not name.endswith("__main__")]
random.Random(int(sys.argv[1])).shuffle(names)
for name in names:
    importlib.import_module(name)
"""

PROMISED = """
import lianzhi as lz
for name in (
    "model task compress load save prune.plan prune.Plan.from_json quantize.quantize quantize.lint "
    "distill.losses.kd distill.capture distill.LayerMap measure.latency measure.macs measure.parameters deploy.load "
    "deploy.oneflow.read deploy.oneflow.write"
).split():
    value = lz
    for part in name.split("."):
        value = getattr(value, part)
    assert callable(value), f"lz.{name} is the module {value!r}, not the function"
for name in lz.distill.losses.registry.names():
    assert callable(getattr(lz.distill.losses, name)), f"lz.distill.losses.{name} is not the function"
"""

CALLED = """
import sys, warnings
from pathlib import Path
import torch
folder = Path(sys.argv[2])
torch.manual_seed(0)
task = lz.task("synthetic", samples=64, classes=3, shape=(3, 16, 16))
images = task.example_inputs
model = lz.model("lenet5_classic", in_channels=3, image_size=16, num_classes=3).eval()

plan = lz.prune.plan(model, images, ratio=0.5)
assert plan.verify() < 1e-4
assert len(plan.table()) > 0 and isinstance(plan.unprunable, list)
assert len(lz.prune.Plan.from_json(plan.to_json(), model, images).table()) > 0
pruned = plan.apply()
assert lz.measure.macs(pruned, images) < lz.measure.macs(model, images)
assert lz.measure.parameters(pruned) < lz.measure.parameters(model)
assert lz.measure.latency(pruned, images, repeats=3).median_ms > 0

quantized = lz.quantize.quantize(pruned, images, [torch.randn(8, 3, 16, 16)])
file = quantized.export(folder / "int8.onnx")
assert lz.quantize.lint(file, "onnxruntime") == []
assert lz.deploy.load(file, runtime="onnxruntime")(images).shape == (1, 3)

lz.save(pruned, folder / "artifact", example_inputs=images)
assert torch.equal(lz.load(folder / "artifact")(images), pruned(images))

logits = torch.randn(2, 3)
assert lz.distill.losses.kd(logits, logits).item() == 0.0

steps = [lz.Distill(method="kd", epochs=1, batch_size=16)]
result = lz.compress(model, task, steps=steps, target="onnxruntime", output=folder / "out",
                     measure=lz.Measure(batches=(1,), repeats=1), progress=False)
assert "distill" in str(result.table()) and isinstance(result.model, torch.nn.Module)
assert [row["step"] for row in result.report["rows"]][0] == "original"
assert lz.load(result.path)(images).shape == (1, 3)
"""


def python(code: str, *arguments: object) -> str:
    source = str(Path(lianzhi.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_is_quick_and_lean():
    """Seconds of the processor, the better of two, since the machine may be busy with other tests."""
    first, second = (json.loads(python(TIMED)) for _ in range(2))
    assert min(first["seconds"], second["seconds"]) < 1.5
    heavy = {name.split(".")[0] for name in first["new"]} & HEAVY
    assert heavy == set(), f"`import lianzhi` imports {sorted(heavy)}"


LAZY = """
import sys
import lianzhi as lz
assert not {"torch", "numpy", "pydantic"} & set(sys.modules), "import lianzhi imports libraries"
assert set(lz.__all__) <= set(dir(lz))
assert lz.models.describe and lz.train.fit and lz.compress and lz.Task and "torch" in sys.modules
for name in ("prunne", "_hidden", "cli.main"):
    assert not hasattr(lz, name), name
from lianzhi import *
assert task is lz.tasks.task and Prune is lz.recipe.Prune
"""


def test_names_are_imported_when_they_are_asked_for():
    python(LAZY)


@pytest.mark.parametrize("seed", range(3))
def test_names_mean_functions_in_any_order_of_imports(seed):
    python(ANY_ORDER + PROMISED, seed)


def test_every_promised_function_works_after_imports_in_any_order(tmp_path: Path):
    python(ANY_ORDER + PROMISED + CALLED, 3, tmp_path)
