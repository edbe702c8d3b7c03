"""predict.py needs NumPy, Pillow and the runtime only, and prints what Lianzhi itself would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lianzhi import artifact, deploy
from lianzhi.errors import ArtifactError, TargetError
from lianzhi.tasks import Preprocess

LABELS = ["T-shirt", "猫", "dog", "ship", "truck", "frog", "bird"]
COLOUR = Preprocess(
    size=(12, 10), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), resize=14, crop=(12, 12)
)
GREY = Preprocess(size=(12, 10), channels=1, mean=(0.3,), std=(0.35,))
RUN = """
import sys, runpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lianzhi", "onnx", "transformers"):
            raise ImportError(name + " is not to be needed")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def made(folder: Path, preprocess: Preprocess | None, runtime: str) -> Path:
    """An artifact with its ONNX file and its script."""
    channels = 3 if preprocess is None else preprocess.channels
    model = nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7)
    ).eval()
    example = torch.randn(1, channels, 12, 10)
    with torch.no_grad():
        model[4].weight *= 20
    values = None if preprocess is None else preprocess.to_dict()
    artifact.save(
        model, folder, example_inputs=example, preprocess=values, labels=LABELS if preprocess else None
    )
    deploy.export_onnx(model, example, folder / "model.onnx")
    artifact.write_predict(folder, runtime=runtime)
    return folder


def run(folder: Path, *inputs: Path) -> list[tuple[str, str, float]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, str(folder / "predict.py"), *map(str, inputs)],
        capture_output=True,
        check=False,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split("\t") for line in done.stdout.decode("utf-8").splitlines()]
    return [(path, name, float(share)) for path, name, share in lines]


@pytest.mark.parametrize(("preprocess", "runtime"), [(COLOUR, "onnxruntime"), (GREY, "openvino")])
def test_it_prints_what_the_model_says(tmp_path, preprocess, runtime):
    pytest.importorskip(runtime)
    folder = made(tmp_path / "a", preprocess, runtime)
    assert len((folder / "predict.py").read_text().splitlines()) < 45
    pixels = np.random.default_rng(0).integers(0, 255, (2, 30, 21, 3), np.uint8)
    paths = [tmp_path / "one.png", tmp_path / "zwei.png"]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    lines = run(folder, *paths)
    assert len(lines) == 10
    model = artifact.load(folder)
    for index, path in enumerate(paths):
        with torch.no_grad(), Image.open(path) as image:
            shares = model(torch.from_numpy(preprocess(image)))[0].softmax(0)
        values, classes = shares.topk(5)
        found = lines[5 * index : 5 * index + 5]
        assert {line[0] for line in found} == {str(path)}
        assert [line[1] for line in found] == [LABELS[number] for number in classes]
        assert np.allclose([line[2] for line in found], values, atol=2e-4)


def test_without_preprocessing_it_takes_arrays(tmp_path):
    folder = made(tmp_path / "a", None, "onnxruntime")
    x = np.random.default_rng(0).normal(size=(1, 3, 12, 10)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    with torch.no_grad():
        best = int(artifact.load(folder)(torch.from_numpy(x))[0].argmax())
    assert run(folder, tmp_path / "x.npy")[0][1] == str(best)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(TargetError, match="did you mean 'onnxruntime'"):
        artifact.write_predict(tmp_path, runtime="onnxruntim")
    with pytest.raises(TargetError, match="unknown precision 'f64'"):
        artifact.write_predict(tmp_path, runtime="openvino", precision="f64")
    with pytest.raises(ArtifactError, match=r"needs model\.onnx"):
        artifact.write_predict(tmp_path, runtime="openvino")
    (tmp_path / "model.onnx").write_bytes(b"\x08")
    for precision, hint in (("bf16", "bf16"), ("int8", "f32"), ("f32", "f32")):
        text = artifact.write_predict(tmp_path, runtime="openvino", precision=precision).read_text()
        assert f'"INFERENCE_PRECISION_HINT": "{hint}"' in text
        assert "@" not in text


def test_outputs_that_have_no_name_are_called_by_their_number(tmp_path):
    folder = made(tmp_path / "a", GREY, "onnxruntime")
    (folder / "labels.txt").write_text("only\n")
    Image.new("L", (12, 10)).save(tmp_path / "x.png")
    names = {name for _, name, _ in run(folder, tmp_path / "x.png")}
    assert len(names) == 5
    assert names <= {"only", *"123456"}
