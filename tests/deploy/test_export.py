"""Export: names, free batch, one clean file, and errors that leave nothing behind."""

import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lianzhi import deploy
from lianzhi.errors import ArtifactError, DataError, GraphError, TargetError
from lianzhi.graph import capture

RUNTIMES = ["onnxruntime", "openvino"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = torch.relu(self.bn2(self.conv2(x)) + shortcut)
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 4)

    def forward(self, first, second):
        return {"small": self.left(first), "large": self.right(second)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = Residual()
    model(torch.randn(8, 3, 16, 16))  # BatchNorm statistics that are not trivial
    path = deploy.export_onnx(
        model, torch.zeros(1, 3, 16, 16), tmp_path_factory.mktemp("onnx") / "model.onnx"
    )
    return model, path


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", [1, 5])
def test_the_file_computes_what_the_module_does(exported, runtime, batch):
    model, path = exported
    inputs = torch.randn(batch, 3, 16, 16)
    session = deploy.load(path, runtime=runtime, threads=1)
    assert (session.runtime, session.precision, session.threads) == (runtime, "f32", 1)
    with torch.no_grad():
        expected = model.eval()(inputs)
    torch.testing.assert_close(session(inputs), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(session(inputs.numpy()), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(session({"input": inputs}), expected, rtol=1e-4, atol=1e-5)


def test_the_file_is_clean(exported):
    _, path = exported
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [item.name for item in proto.graph.input] == ["input"]
    assert [item.name for item in proto.graph.output] == ["output"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"stack_trace" not in path.read_bytes()
    assert __file__.encode() not in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_training_mode_is_left_as_it_was(tmp_path):
    model = Residual()
    model.bn1.eval()
    deploy.export_onnx(model, torch.zeros(1, 3, 16, 16), tmp_path / "m.onnx")
    assert model.training
    assert model.bn2.training
    assert not model.bn1.training


def test_a_captured_graph_exports_the_same(exported, tmp_path):
    model, path = exported
    graph = capture(model, torch.zeros(1, 3, 16, 16))
    again = deploy.export_onnx(graph.module, torch.zeros(1, 3, 16, 16), tmp_path / "m.onnx")
    inputs = torch.randn(3, 3, 16, 16)
    first, second = (deploy.load(file, runtime="onnxruntime", threads=1)(inputs) for file in (path, again))
    torch.testing.assert_close(first, second)


def test_fixed_batch(tmp_path):
    path = deploy.export_onnx(nn.Linear(3, 2), torch.zeros(4, 3), tmp_path / "m.onnx", dynamic_batch=False)
    session = deploy.load(path, runtime="onnxruntime", threads=1)
    assert session(torch.zeros(4, 3)).shape == (4, 2)
    with pytest.raises(DataError, match=r"'input' has shape \(3, 3\), and the model takes \(4, 3\)"):
        session(torch.zeros(3, 3))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_inputs_and_outputs(tmp_path, runtime):
    model = TwoInputs().eval()
    inputs = {"first": torch.randn(2, 3), "second": torch.randn(2, 3)}
    path = deploy.export_onnx(model, inputs, tmp_path / "m.onnx")
    session = deploy.load(path, runtime=runtime, threads=1)
    assert [port.name for port in session.inputs] == ["first", "second"]
    assert session.outputs == ("small", "large")
    with torch.no_grad():
        expected = model(**inputs)
    for given in (inputs, tuple(inputs.values()), dict(reversed(inputs.items()))):
        small, large = session(given)
        torch.testing.assert_close(small, expected["small"])
        torch.testing.assert_close(large, expected["large"])
    with pytest.raises(DataError, match="'second' is not given"):
        session({"first": inputs["first"]})
    with pytest.raises(DataError, match="no input 'frist'; did you mean 'first'"):
        session({"frist": inputs["first"]})
    with pytest.raises(DataError, match="1 inputs are given, and the model takes 2"):
        session(inputs["first"])


def test_wrong_type_and_results_are_own_memory(exported):
    _, path = exported
    for runtime in RUNTIMES:
        session = deploy.load(path, runtime=runtime, threads=1)
        first = session(torch.zeros(1, 3, 16, 16))
        kept = first.clone()
        session(torch.ones(1, 3, 16, 16))
        torch.testing.assert_close(first, kept, rtol=0, atol=0)
        with pytest.raises(DataError, match="type int64"):
            session(torch.zeros(1, 3, 16, 16, dtype=torch.int64))
        session(np.zeros((1, 3, 16, 16), np.float64))


def test_what_cannot_be_exported_or_written(tmp_path):
    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match="Decides cannot be captured"):
        deploy.export_onnx(Decides(), torch.zeros(1, 3), tmp_path / "m.onnx")
    with pytest.raises(ArtifactError, match=r"ends in \.onnx"):
        deploy.export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path / "m.bin")
    with pytest.raises(ArtifactError, match="does not exist"):
        deploy.export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path / "no" / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_export_says_nothing(tmp_path, capfd):
    deploy.export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path / "m.onnx")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_large_weights_go_into_a_side_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["lianzhi.deploy.onnx"], "ONE_FILE", 1000)
    model = nn.Linear(64, 64)
    path = deploy.export_onnx(model, torch.zeros(1, 64), tmp_path / "m.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    inputs = torch.randn(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(deploy.load(path, runtime="onnxruntime", threads=1)(inputs), model(inputs))


def test_example_inputs_of_a_file(exported, tmp_path):
    _, path = exported
    inputs = deploy.onnx_example_inputs(path)
    assert inputs.shape == (1, 3, 16, 16)
    assert inputs.dtype == torch.float32
    two = deploy.export_onnx(TwoInputs(), (torch.zeros(1, 3), torch.zeros(1, 3)), tmp_path / "two.onnx")
    assert {name: tuple(value.shape) for name, value in deploy.onnx_example_inputs(two).items()} == {
        "first": (1, 3),
        "second": (1, 3),
    }


def test_damaged_file(tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(b"\x08\x07garbage")
    for runtime in RUNTIMES:
        with pytest.raises(TargetError, match=r"m\.onnx"):
            deploy.load(file, runtime=runtime)
    with pytest.raises(TargetError, match="no such ONNX file"):
        deploy.load(tmp_path / "none.onnx", runtime="onnxruntime")


def test_an_engine_is_told_from_a_damaged_file(tmp_path):
    file = tmp_path / "model.rtx.engine"
    file.write_bytes(b"ftrt")
    for runtime in ("onnxruntime", "tensorrt"):
        with pytest.raises(TargetError, match=r"an engine of TensorRT .* give the model\.onnx"):
            deploy.load(file, runtime=runtime)


class Siamese(nn.Module):
    """Two images go through one layer as one batch, which is cut in two again along the free dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, first, second):
        left, right = torch.chunk(self.conv(torch.cat([first, second])), 2, dim=0)
        return left * right


def test_a_batch_that_is_cut_in_two_is_exported(tmp_path):
    torch.manual_seed(0)
    model, inputs = Siamese().eval(), (torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8))
    path = deploy.export_onnx(model, inputs, tmp_path / "model.onnx")
    wider = tuple(torch.randn(3, 3, 8, 8) for _ in range(2))
    with torch.no_grad():
        expected = model(*wider)
    torch.testing.assert_close(
        deploy.load(path, runtime="onnxruntime")(wider), expected, atol=1e-5, rtol=1e-5
    )
