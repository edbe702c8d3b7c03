"""The recipes for a OneFlow checkpoint on TensorRT, at small size: calibrated with data, and by the cache that this left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lianzhi as lz
from lianzhi.cli import main
from lianzhi.deploy import oneflow

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    "model={name: lenet5, weights: flow}",
    "task={name: synthetic, shape: [1, 28, 28], samples: 48, classes: 4, validation: 8, calibration: 16}",
    "measure.repeats=2",
]
ONLINE, OFFLINE = "oneflow-resnet50-int8.yaml", "oneflow-resnet50-int8-offline.yaml"


def compress(name: str, output: str, *changes: str) -> int:
    sets = [part for item in (*SMALL, *changes) for part in ("--set", item)]
    return main(["compress", str(RECIPES / name), "-o", output, "--quiet", *sets])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a OneFlow checkpoint."""
    folder = tmp_path_factory.mktemp("oneflow")
    oneflow.write(lz.model("lenet5").state_dict(), folder / "flow")
    return folder


@pytest.mark.parametrize("name", [ONLINE, OFFLINE])
def test_the_recipes_open_the_checkpoint_of_resnet50(name):
    found = lz.recipe.load(RECIPES / name)
    assert (found.model.name, found.model.num_classes, found.target) == ("resnet50", 1000, "tensorrt")
    table = found.steps[0].calibration_table
    assert table == (
        None if name == ONLINE else str(RECIPES.parent / "out/oneflow-resnet50-int8/calibration.cache")
    )


def test_online_and_by_its_cache_the_same_file(place, monkeypatch):
    pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.chdir(place)
    assert compress(ONLINE, "online") == 0
    assert compress(OFFLINE, "offline", f"steps.0.calibration_table={place}/online/calibration.cache") == 0
    for file in ("model.onnx", "calibration.cache"):
        assert (place / "online" / file).read_bytes() == (place / "offline" / file).read_bytes()
    report = json.loads((place / "offline" / "report.json").read_text())
    assert any("taken by NVIDIA's parser" in note for note in report["notes"])
    found = report["rows"][-1]["details"]["quantization"]["tensorrt"]
    assert found["calibration"]["samples"] == 0
    assert any("calibration cache of TensorRT" in note for note in found["notes"])
    assert lz.quantize.lint(place / "offline" / "model.onnx", "tensorrt") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["target=openvino"], "for target 'tensorrt', and not 'openvino'"),
        (["steps.0.techniques=[equalization]"], "'equalization' changes values before they are observed"),
        (["steps.0.calibration_table=/none.cache"], "none.cache: the calibration table cannot be read"),
    ],
)
def test_what_does_not_go_with_a_cache_is_refused_before_anything_is_written(
    place, monkeypatch, capsys, changes, message
):
    monkeypatch.chdir(place)
    (place / "c.cache").write_text("TRT-100300-EntropyCalibration2\ninput: 3f800000\n")
    table = f"steps.0.calibration_table={place}/c.cache"
    assert compress(OFFLINE, "refused", table, *changes) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (place / "refused").exists()
