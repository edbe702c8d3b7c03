"""A recipe for TensorRT on a machine without a GPU: an engine is built, and nothing is said of its speed."""

import json

import pytest
from torch import nn

import lianzhi as lz
from lianzhi import cli
from lianzhi.errors import TargetError

pytest.importorskip("tensorrt_rtx_bindings")
MEASURE = lz.Measure(batches=(1,), repeats=2, max_drop=1.0)


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=3, shape=(3, 8, 8))


@pytest.fixture(scope="module")
def out(task, tmp_path_factory):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, 3),
    )
    folder = tmp_path_factory.mktemp("trt") / "out"
    steps = [lz.Train(epochs=1, batch_size=32), lz.Quantize(calibration=32)]
    return lz.compress(
        net, task, steps, output=folder, target="tensorrt", measure=MEASURE, progress=False
    ).path


def test_the_artifact_holds_an_engine_and_the_checked_file(out):
    report = json.loads((out / "report.json").read_text())
    decision = report["decision"]
    assert (decision["runtime"], decision["precision"]) == ("tensorrt", "int8")
    assert "nothing is said of its speed" in decision["reason"]
    lines = [(item["precision"], item["median_ms"], item["verdict"]) for item in decision["candidates"]]
    assert lines == [("f32", None, "larger"), ("int8", None, "kept")]
    assert any("built by TensorRT-RTX" in note and "not executed" in note for note in report["notes"])
    assert (out / "model.rtx.engine").stat().st_size > 10_000
    assert report["rows"][-1]["runtime"] == "onnxruntime"  # what was timed, by its own name
    assert lz.quantize.lint(out / "model.onnx", "tensorrt") == []
    assert lz.load(out)


def test_it_is_evaluated_by_a_runtime_that_is_here(out, capsys):
    assert cli.main(["measure", str(out), "--repeats", "2", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["measure", str(out), "--runtime", "tensorrt"]) == 2
    assert "does not run them on this machine" in capsys.readouterr().err


def test_export_for_another_processor(out, tmp_path, capsys):
    arguments = ["export", str(out), "--target", "tensorrt", "--compute-capability", "8.6", "--json"]
    assert cli.main([*arguments, "-o", str(tmp_path / "e")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["build"]["compute_capability"] == "8.6"
    assert (tmp_path / "e" / "model.rtx.engine").is_file()
    arguments[5] = "1.0"
    assert cli.main([*arguments, "-o", str(tmp_path / "f")]) == 2
    assert "does not build for compute capability 1.0; it does for 7.5" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_a_file_of_another_target_is_refused(task, tmp_path, capsys):
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 3))
    batches = [batch.inputs for batch in task.batches("calibration", 32)]
    file = lz.quantize.quantize(net, task.example_inputs, batches).export(tmp_path / "cpu.onnx")
    assert cli.main(["export", str(file), "--target", "tensorrt", "-o", str(tmp_path / "e")]) == 2
    assert "parser refuses it" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_no_latency_budget_for_it(task, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 3))
    with pytest.raises(TargetError, match="no latency can be measured"):
        lz.compress(
            net, task, [lz.Prune(latency=0.5)], output=tmp_path / "out", target="tensorrt", progress=False
        )
    assert not (tmp_path / "out").exists()
