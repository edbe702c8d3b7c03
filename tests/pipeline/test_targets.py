"""What the target changes: PyTorch needs no ONNX, and a runtime that fails ends no run that can do without it."""

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy
from lianzhi.errors import GraphError, TargetError
from lianzhi.jobs.artifacts import Saved

FAST = {"epochs": 1, "batch_size": 32}
MEASURE = lz.Measure(batches=(1,), repeats=2)


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=96, classes=3, shape=(3, 8, 8))


def small(inner=None):
    return nn.Sequential(nn.Conv2d(3, 8, 3), inner or nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))


def compress(model, task, steps, output, **options):
    return lz.compress(model, task, steps, output=output, measure=MEASURE, progress=False, **options)


def test_every_row_is_of_the_target(task, tmp_path):
    steps = [lz.Train(**FAST), lz.Prune(ratio=0.5)]
    for target in ("pytorch", "onnxruntime", "openvino"):
        result = compress(small(), task, steps, tmp_path / target, target=target)
        assert [row["runtime"] for row in result.report.rows] == ["pytorch", target, target]
    names = {item.name for item in (tmp_path / "pytorch").iterdir()}
    assert "model.onnx" not in names
    assert "predict.py" not in names
    assert lz.load(tmp_path / "pytorch").get_parameter("0.weight").shape[0] == 4


def test_pytorch_ships_its_weights(task, tmp_path):
    result = compress(small(), task, [lz.Prune(ratio=0.5)], tmp_path / "out", target="pytorch")
    assert result.report.rows[-1]["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert Saved(tmp_path / "out").where(None, None).runtime == "pytorch"


class Median(nn.Module):
    """ONNX has no median."""

    def forward(self, x):
        return x - x.median(dim=3, keepdim=True).values


def test_pytorch_needs_no_onnx(task, tmp_path):
    model = small(Median())
    with pytest.raises(GraphError, match=r"cannot be exported to ONNX.*keep target: pytorch"):
        compress(model, task, [lz.Train(**FAST)], tmp_path / "auto")
    result = compress(model, task, [lz.Train(**FAST)], tmp_path / "out", target="pytorch")
    assert {entry["runtime"] for row in result.report.rows for entry in row["latencies"]} == {"pytorch"}
    assert any("timed in PyTorch alone" in note for note in result.report.notes)
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(lz.load(tmp_path / "out")(x), result.model.eval()(x))


def failing(monkeypatch, name):
    """A runtime that loads nothing, as one does whose version lacks an operator."""

    def load(self, path, **options):
        raise TargetError(f"{path}: {name} cannot load it: no such operator")

    monkeypatch.setattr(type(deploy.registry.get(name).build), "load", load)


def test_auto_does_without_a_runtime_that_fails(task, tmp_path, monkeypatch):
    failing(monkeypatch, "openvino")
    steps = [lz.Prune(ratio=0.5), lz.Quantize(calibration=8)]
    result = compress(small(), task, steps, tmp_path / "out")
    assert result.report.decision["runtime"] == "onnxruntime"
    assert any(
        "a candidate is left out" in note and "no such operator" in note for note in result.report.notes
    )
    assert any("openvino is left out of the float latencies" in note for note in result.report.notes)


def test_the_target_itself_has_to_work(task, tmp_path, monkeypatch):
    failing(monkeypatch, "openvino")
    with pytest.raises(TargetError, match="no such operator"):
        compress(small(), task, [lz.Prune(ratio=0.5)], tmp_path / "out", target="openvino")


def test_auto_with_no_runtime_left_says_why(task, tmp_path, monkeypatch):
    failing(monkeypatch, "openvino")
    failing(monkeypatch, "onnxruntime")
    with pytest.raises(TargetError, match="no such operator"):
        compress(small(), task, [lz.Prune(ratio=0.5)], tmp_path / "out")


def test_a_model_too_large_for_one_onnx_file_ships_with_its_data(task, tmp_path, monkeypatch):
    monkeypatch.setattr("lianzhi.deploy.onnx.ONE_FILE", 1000)
    result = compress(small(), task, [lz.Prune(ratio=0.5)], tmp_path / "out", target="onnxruntime")
    assert (tmp_path / "out" / "model.onnx.data").is_file()
    inputs = torch.randn(2, 3, 8, 8)
    found = deploy.load(tmp_path / "out" / "model.onnx", runtime="onnxruntime")(inputs)
    assert torch.allclose(torch.as_tensor(found), result.model.eval()(inputs), atol=1e-5)
