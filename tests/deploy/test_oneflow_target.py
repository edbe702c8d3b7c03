"""`lianzhi export --target oneflow`: the folder that runs under OneFlow by itself, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oneflow_as_torch import run_as_torch, run_script, same_lines
from oneflow_cases import filled
from PIL import Image
from torch import nn

import lianzhi as lz
from lianzhi import artifact, cli, deploy, jobs
from lianzhi.deploy import oneflow
from lianzhi.errors import TargetError
from lianzhi.tasks import Preprocess

COLOUR = Preprocess(
    size=(12, 10), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), resize=14, crop=(12, 12)
)
LABELS = ["T-shirt", "猫", "dog", "ship", "truck", "frog", "bird"]


def net() -> nn.Module:
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    model = filled(nn.Sequential(*layers, nn.Linear(8, 7)))
    with torch.no_grad():
        model[5].weight *= 20
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An artifact of a model that is no zoo's: a graph."""
    place = tmp_path_factory.mktemp("oneflow") / "artifact"
    values = {"example_inputs": torch.randn(1, 3, 12, 10), "preprocess": COLOUR, "labels": LABELS}
    return artifact.save(net(), place, **values)


def export(model, folder, *more: str) -> int:
    return cli.main(["export", str(model), "--target", "oneflow", "-o", str(folder), *more])


def test_the_folder_runs_alone_and_says_what_predict_says(whole, tmp_path, capsys):
    assert export(whole, tmp_path / "out", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["model.py", "weights", "preprocess.json", "labels.txt", "run_in_oneflow.py"]
    assert (told["target"], told["precision"], told["loaded"], told["notes"]) == ("oneflow", "f32", False, [])
    folder = tmp_path / "out"
    assert {item.name for item in folder.iterdir()} == {*told["files"], "export.json"}
    assert len((folder / "run_in_oneflow.py").read_text().splitlines()) < 50
    for name, value in lz.load(whole).state_dict().items():
        assert torch.equal(oneflow.read(folder / "weights")[name], value)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 30, 21, 3), np.uint8)
    files = [tmp_path / "one.png", tmp_path / "zwei.png"]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    same_lines(run_script(folder, *files), jobs.predict(whole, [str(file) for file in files]))


def test_a_packed_file_too(whole, tmp_path, capsys):
    assert cli.main(["pack", str(whole), "-o", str(tmp_path / "model.lzc"), "--quiet"]) == 0
    assert export(tmp_path / "model.lzc", tmp_path / "out") == 0
    found, model = oneflow.read(tmp_path / "out" / "weights"), lz.load(whole)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    assert "no script was written that runs the model" in capsys.readouterr().out
    source = deploy.oneflow.Source((tmp_path / "out" / "model.py").read_text(), found)
    images = torch.randn(3, 3, 12, 10)
    with torch.no_grad():
        assert torch.allclose(run_as_torch(source)(images), model(images), atol=1e-5)


def test_an_onnx_file_is_refused_with_the_reason(tmp_path, capsys):
    file = deploy.export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path / "m.onnx")
    assert export(file, tmp_path / "out") == 2
    assert (
        "an ONNX file cannot be written for oneflow, whose source is made of the module"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_refused_with_the_reason(whole, tmp_path, capsys):
    inputs = torch.randn(8, 3, 12, 10)
    quantized = lz.quantize.quantize(lz.load(whole), inputs[:1], [inputs])
    artifact.save(lz.quantize.plain(quantized.model), tmp_path / "int8", example_inputs=inputs[:1])
    assert export(tmp_path / "int8", tmp_path / "out") == 2
    assert (
        "the model is quantized, and OneFlow has no int8 for it; write the float model"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_an_operation_without_counterpart_leaves_nothing_behind(tmp_path, capsys):
    class Median(nn.Module):
        def forward(self, x):
            return x - x.median(dim=1, keepdim=True).values

    artifact.save(Median(), tmp_path / "odd", example_inputs=torch.randn(1, 3))
    assert export(tmp_path / "odd", tmp_path / "out") == 2
    assert "no counterpart for aten.median.dim (at 'median')" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_other_targets_are_refused(whole, tmp_path, capsys):
    assert export(whole, tmp_path / "out", "--compute-capability", "8.9") == 2
    assert "target 'oneflow' has no option 'compute_capability'" in capsys.readouterr().err
    assert export(whole, tmp_path / "out", "--codes") == 2
    assert "--codes is of ONNX files" in capsys.readouterr().err


def test_force_replaces_an_older_one_and_leaves_other_files(whole, tmp_path):
    folder = tmp_path / "out"
    assert export(whole, folder) == 0
    (folder / "notes.txt").write_text("mine")
    (folder / "weights" / "left").write_text("of an older one")
    assert export(whole, folder) == 2
    assert export(whole, folder, "--force") == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "weights" / "left").exists()


def test_it_is_listed_and_not_run(whole, capsys):
    assert cli.main(["list", "targets"]) == 0
    assert "oneflow" in capsys.readouterr().out
    with pytest.raises(TargetError, match="does not run them on this machine"):
        deploy.load(whole, runtime="oneflow")


class Several(nn.Module):
    """Logits, and something else beside them."""

    def __init__(self, shape) -> None:
        super().__init__()
        self.net, self.shape = net(), shape

    def forward(self, x):
        logits = self.net(x)
        return self.shape(logits, logits.sum(1))


@pytest.mark.parametrize(
    "shape",
    [
        lambda logits, other: (logits, other),
        lambda logits, other: {"scores": logits, "sum": other},
        lambda logits, other: {"sum": other, "logits": logits},
    ],
    ids=["tuple", "dict", "named"],
)
def test_the_script_takes_the_logits_of_several_outputs(tmp_path, shape):
    model = Several(shape).eval()
    values = {"example_inputs": torch.randn(1, 3, 12, 10), "preprocess": COLOUR, "labels": LABELS}
    artifact.save(model, tmp_path / "artifact", **values)
    assert export(tmp_path / "artifact", tmp_path / "out") == 0
    pixels = np.random.default_rng(0).normal(size=(1, 3, 12, 10)).astype(np.float32)
    np.save(tmp_path / "one.npy", pixels)
    lines = run_script(tmp_path / "out", tmp_path / "one.npy")
    with torch.no_grad():
        wanted = torch.softmax(model.net(torch.from_numpy(pixels))[0], 0).sort(descending=True)
    assert [line[1] for line in lines] == [LABELS[place] for place in wanted.indices[:5]]
    assert np.allclose([float(line[2]) for line in lines], wanted.values[:5].numpy(), atol=1e-4)
