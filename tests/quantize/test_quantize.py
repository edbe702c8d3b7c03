"""Quantize, export, run: the deployed file computes what the module with fake quantizers does."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch
from nets import NETS, Inception, Inverted, Perceptron, Projection, Residual, made
from torch import nn

from lianzhi import deploy, measure
from lianzhi.errors import DataError, GraphError, RecipeError
from lianzhi.graph import deserialize, serialize
from lianzhi.quantize import lint, quantize
from lianzhi.quantize.lower import lower
from lianzhi.tasks import Batch

TARGETS = ["onnxruntime", "openvino"]


def done(net, target="onnxruntime", **options):
    model, inputs = made(net)
    return model, inputs, quantize(model, inputs[:1], list(inputs.split(16)), target=target, **options)


@pytest.mark.parametrize(
    ("net", "target"),
    [(net, "onnxruntime") for net in NETS] + [(net, "openvino") for net in (Residual, Projection, Inception)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_parity_of_the_deployed_file(net, target, exported):
    model, _ = made(net)
    inputs, quantized, path = exported(net, target)
    with torch.no_grad():
        expected, exact = quantized.model(inputs), model(inputs)
        stored = lower(quantized.model)(inputs)
    torch.testing.assert_close(stored, expected, rtol=1e-5, atol=1e-5)
    assert (expected - exact).square().mean() < 0.002 * exact.square().mean()
    for runtime in TARGETS:
        session = deploy.load(path, runtime=runtime, threads=1)
        assert session.precision == "int8"
        for count in (1, len(inputs)):
            found = session(inputs[:count])
            difference = (found - expected[:count]).square().mean() / exact.square().mean()
            # on its own target as good as equal; elsewhere the runtime rounds in other places
            assert difference < (1e-4 if target in (runtime, "openvino") else 1e-3), runtime
    assert lint(path, target) == []
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_integers_are_stored(exported):
    _, _, path = exported(Residual)
    proto = onnx.load(path)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    weights = [name for name, value in tensors.items() if value.ndim > 1]
    assert weights
    assert all(tensors[name].dtype == np.int8 for name in weights)
    assert any(value.dtype == np.int32 for value in tensors.values())
    kinds = {node.op_type for node in proto.graph.node}
    assert "BatchNormalization" not in kinds


def test_the_file_is_four_times_smaller(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(64, 128, 3, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 128, 3)
    ).eval()
    inputs = torch.randn(4, 64, 8, 8)
    float_path = deploy.export_onnx(model, inputs[:1], tmp_path / "float.onnx")
    path = quantize(model, inputs[:1], [inputs]).export(tmp_path / "int8.onnx")
    assert measure.size(path) < 0.27 * measure.size(float_path)


def test_every_kernel_is_an_integer_kernel(tmp_path, exported):
    """ONNX Runtime's own optimised graph: nothing of the convolutional part is left in float."""
    import onnxruntime

    _, _, path = exported(Inverted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 5
    assert {"QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= set(kinds)
    assert not {"Conv", "Add", "Clip", "Relu", "Gemm", "GlobalAveragePool", "DequantizeLinear"} & set(kinds)


def test_the_model_is_left_as_it_was():
    model, inputs = made(Residual)
    model.train()
    before = copy.deepcopy(model.state_dict())
    quantized = quantize(model, inputs[:1], [inputs])
    assert model.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in quantized.model.state_dict().values()}


def test_the_quantized_model_trains_and_copies():
    _, inputs, quantized = done(Residual)
    module = copy.deepcopy(quantized.model)
    module.train()
    module(inputs).square().mean().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert any("quantizers" in name for name, _ in module.named_buffers())


@pytest.mark.parametrize("net", [Residual, Inception, Perceptron], ids=lambda net: net.__name__)
def test_the_quantized_model_is_saved_and_loaded(net):
    _, inputs, quantized = done(net)
    text = json.dumps(serialize.to_json(quantized.model))
    again = deserialize.from_json(json.loads(text), dict(quantized.model.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(again(inputs), quantized.model(inputs), rtol=0, atol=0)
    assert measure.macs(again, inputs[:1]) == measure.macs(made(net)[0], inputs[:1])


def test_quantizing_twice_gives_the_same():
    _, _, first = done(Residual)
    _, _, second = done(Residual)
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(tensor, second.model.state_dict()[name], rtol=0, atol=0)


def test_report_names_the_worst_layer():
    model, inputs = made(Residual)
    with torch.no_grad():
        model.conv2.weight[:, :, 0, 0] *= 1e-3
        model.conv2.weight[:, 0, 1, 1] = 10.0  # an outlier a channel: everything else is rounded away
    quantized = quantize(
        model, inputs[:1], [inputs], evaluate=lambda module: float(module(inputs).detach().mean())
    )
    report = json.loads(json.dumps(quantized.report))
    rows = {row["name"]: row for row in report["layers"]}
    assert set(rows) == {"conv1", "conv2", "linear"}
    assert min(rows, key=lambda name: rows[name]["weight_sqnr_db"]) == "conv2"
    assert len(report["worst"]) == 3
    assert report["calibration"] == {"batches": 1, "samples": 64, "table": None}
    assert set(report["accuracy"]) == {"float", "quantized"}
    assert all(0 <= row["clipped"] < 0.05 for row in report["values"])
    text = str(quantized)
    assert "worst layers" in text
    assert "conv2" in text


def test_reduce_range_is_said_and_stops_saturation(tmp_path):
    model, inputs = made(Residual)
    for reduce_range, largest in ((True, 64), (False, 127)):
        quantized = quantize(model, inputs[:1], [inputs], reduce_range=reduce_range)
        assert quantized.report["reduce_range"] is reduce_range
        integers = [
            tensor for tensor in lower(quantized.model).state_dict().values() if tensor.dtype == torch.int8
        ]
        assert max(int(tensor.abs().max()) for tensor in integers) == largest
    if measure.cpu().saturates:
        assert any("7 bits" in note for note in quantize(model, inputs[:1], [inputs]).report["notes"])
        path = quantized.export(tmp_path / "m.onnx")
        assert {finding.rule for finding in lint(path, "onnxruntime")} == {"saturating-weights"}


def test_dead_channels_and_constant_inputs(tmp_path):
    model, _ = made(Residual)
    with torch.no_grad():
        model.conv1.weight[0] = 0
        model.bn2.weight[1] = 0
        model.bn2.bias[1] = 5.0
        model.linear.weight[3] = 0
        model.linear.bias[3] = 100.0
    for inputs in (torch.zeros(4, 3, 16, 16), -torch.ones(4, 3, 16, 16), torch.full((4, 3, 16, 16), 2.0)):
        quantized = quantize(model, inputs[:1], [inputs])
        scales = [tensor for name, tensor in quantized.model.named_buffers() if name.endswith("scale")]
        assert all((scale > 0).all() and torch.isfinite(scale).all() for scale in scales)
        with torch.no_grad():
            exact, rounded = model(inputs), quantized.model(inputs)
        assert torch.isfinite(rounded).all()
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    path = quantized.export(tmp_path / "m.onnx")
    for runtime in TARGETS:
        found = deploy.load(path, runtime=runtime, threads=1)(inputs)
        torch.testing.assert_close(found, rounded, rtol=0.02, atol=0.02)


def test_a_weight_that_is_used_twice(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.head(torch.relu(self.conv(torch.relu(self.conv(x)))))

    model, inputs = Twice().eval(), torch.randn(8, 4, 6, 6)
    quantized = quantize(model, inputs[:1], [inputs])
    path = quantized.export(tmp_path / "m.onnx")
    with torch.no_grad():
        torch.testing.assert_close(
            deploy.load(path, runtime="onnxruntime", threads=1)(inputs),
            quantized.model(inputs),
            rtol=1e-3,
            atol=0.02,
        )
    stored = [tensor for tensor in onnx.load(path).graph.initializer if list(tensor.dims) == [4, 4, 3, 3]]
    assert len(stored) == 1


def test_calibration_in_every_form():
    model, inputs = made(Perceptron)
    expected = quantize(model, inputs[:1], [inputs]).model.state_dict()
    ids, labels = torch.arange(64), torch.zeros(64)
    for form in (
        [(inputs, labels)],
        [[inputs, labels]],
        [(inputs,)],
        [Batch(inputs, labels, ids, 64)],
        (item for item in [inputs]),
    ):
        for name, tensor in quantize(model, inputs[:1], form).model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def nan_batch():
    inputs = torch.zeros(2, 32)
    inputs[1, 3] = float("nan")
    return inputs


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration data are empty"),
        ([torch.zeros(0, 32)], "calibration data are empty"),
        ([torch.zeros(2, 32), nan_batch()], "batch 1: input 'x' holds NaN"),
        ([torch.full((2, 32), float("inf"))], "NaN or infinite"),
        ([torch.zeros(2, 31)], r"batch 0: input 'x' has shape \(2, 31\), and the model takes \(any, 32\)"),
        ([torch.zeros(2, 32, dtype=torch.int64)], "type torch.int64, and the model takes torch.float32"),
        ([np.zeros((2, 32))], "is a ndarray, not a tensor"),
        ([{"x": torch.zeros(2, 32)}], r"has the keys \['x'\]"),
        ([(torch.zeros(2, 32),) * 3], "holds 3 inputs, and the model takes 1"),
        (torch.zeros(2, 32), "put one tensor into a list"),
        (7, "must be an iterable of batches, not int"),
    ],
)
def test_bad_calibration_data(calibration, message):
    model, inputs = made(Perceptron)
    with pytest.raises(DataError, match=message):
        quantize(model, inputs[:1], calibration)


def test_a_model_that_overflows_is_named():
    model, inputs = made(Perceptron)
    with torch.no_grad():
        model.hidden.weight.fill_(1e38)
    with pytest.raises(DataError, match="not finite on the calibration data, first at") as caught:
        quantize(model, inputs[:1], [inputs])
    assert "While executing" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"weights": "float16", "activations": "float"}])
def test_weights_that_are_no_numbers(value, options):
    model, inputs = made(Perceptron)
    with torch.no_grad():
        model.hidden.weight[0, 0] = value
    with pytest.raises(GraphError, match=r"'hidden\.weight' has NaN or infinite values"):
        quantize(model, inputs[:1], [inputs], **options)


@pytest.mark.parametrize("value", [float("nan"), None, "good", torch.zeros(2)])
@pytest.mark.parametrize("options", [{"max_drop": 0.1}, {"weights": "float16", "activations": "float"}])
def test_a_metric_that_is_no_number(value, options):
    model, inputs = made(Perceptron)
    with pytest.raises(DataError, match=r"evaluate gave .* for the model; it must give one finite number"):
        quantize(model, inputs[:1], [inputs], evaluate=lambda module: value, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "coreml"}, "'coreml' is not offered"),
        ({"weights": "int3"}, "weights: 'int3' is not offered; known: int8, int4"),
        ({"techniques": ("adaruond",)}, "unknown technique 'adaruond'; did you mean 'adaround'"),
        ({"max_drop": 0.01}, "give evaluate="),
        ({"observer": "minmx"}, "did you mean 'minmax'"),
        ({"observer_options": {"shar": 3}}, "unknown option 'shar'"),
        ({"observer_options": "share"}, "observer_options: 'share' is not a mapping"),
        ({"max_drop": "0.1", "evaluate": len}, "max_drop: '0.1' must be 0 or more"),
        ({"ignore": "hidden"}, "ignore: 'hidden' is not a list of patterns"),
        ({"ignore": [3]}, r"ignore: \[3\] is not a list of patterns"),
        ({"layers": ["hidden"]}, r"layers: \['hidden'\] is not a mapping"),
        ({"layers": {"hidden": ["int4"]}}, "is not a mapping"),
        ({"ignore": ["hiden"]}, "'hiden' matches no layer; did you mean 'hidden'"),
    ],
)
def test_options_that_are_not_offered(options, message):
    model, inputs = made(Perceptron)
    with pytest.raises(RecipeError, match=message):
        quantize(model, inputs[:1], [inputs], **options)


def test_ignored_layers_stay_float(tmp_path):
    _, inputs, quantized = done(Residual, ignore=["conv1", "lin*"])
    assert [row["name"] for row in quantized.report["layers"]] == ["conv2"]
    assert {row["name"] for row in quantized.report["left_float"]} == {"conv1", "linear"}
    path = quantized.export(tmp_path / "m.onnx")
    with torch.no_grad():
        expected = quantized.model(inputs)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.02)


def test_two_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 8), nn.Linear(6, 8)

        def forward(self, first, second):
            return torch.relu(self.left(first)) + self.right(second)

    model = Two().eval()
    inputs = {"first": torch.randn(16, 4), "second": torch.randn(16, 6)}
    labels = torch.zeros(16)
    for example, calibration in (
        (
            tuple(value[:1] for value in inputs.values()),
            [tuple(inputs.values()), (tuple(inputs.values()), labels)],
        ),
        ({name: value[:1] for name, value in inputs.items()}, [inputs, (inputs, labels)]),
    ):
        quantized = quantize(model, example, calibration)
        assert quantized.report["calibration"] == {"batches": 2, "samples": 32, "table": None}
    path = quantized.export(tmp_path / "m.onnx")
    with torch.no_grad():
        expected = quantized.model(**inputs)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.02)


class Alike(nn.Module):
    """``conv.1`` and ``conv_1`` are two layers, one of weights a thousand times as large."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        self.conv_1 = nn.Conv2d(8, 8, 3)
        with torch.no_grad():
            self.conv_1.weight *= 1000

    def forward(self, x):
        return self.conv_1(torch.relu(self.conv(x)))


def test_names_that_differ_by_a_dot_have_scales_of_their_own():
    torch.manual_seed(0)
    inputs = torch.randn(16, 3, 12, 12)
    report = quantize(Alike().eval(), inputs[:1], [inputs]).report
    assert [row["name"] for row in report["layers"]] == ["conv.0", "conv.1", "conv_1"]
    assert min(row["weight_sqnr_db"] for row in report["layers"]) > 30


def test_a_model_may_have_quantizers_of_its_own():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.quantizers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

        def forward(self, x):
            return self.quantizers(x)

    inputs = torch.randn(16, 3, 12, 12)
    model = Named().eval()
    quantized = quantize(model, inputs[:1], [inputs])
    assert [row["name"] for row in quantized.report["layers"]] == ["quantizers.0"]
    with torch.no_grad():
        assert (quantized.model(inputs) - model(inputs)).abs().max() < 0.1


def test_simulated_in_pytorch():
    model, inputs = made(Residual)
    form = quantize(model, inputs[:1], [inputs], target="pytorch", reduce_range=True)
    same = quantize(model, inputs[:1], [inputs], target="onnxruntime", reduce_range=False)
    assert form.report["weights"] == "int8 symmetric per channel"  # nothing saturates where float computes
    assert [note for note in form.report["notes"] if "bits" in note and "'pytorch'" in note]
    with torch.no_grad():
        assert torch.equal(form.model(inputs), same.model(inputs))


@pytest.mark.parametrize("net", [Residual, Inverted], ids=lambda net: net.__name__)
def test_no_result_is_left_unread(net, exported):
    proto = onnx.load(exported(net)[2])
    read = {name for node in proto.graph.node for name in node.input} | {proto.graph.output[0].name}
    assert [node.name for node in proto.graph.node if not read.intersection(node.output)] == []
