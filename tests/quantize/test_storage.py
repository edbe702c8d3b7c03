"""Weights alone: groups of inputs with scales of their own, and floats of 16 bits; files run and are as small."""

import numpy as np
import onnx
import pytest
import torch
from nets import Feed, Inception, Inverted, Projection, Residual, made
from onnx import numpy_helper
from torch import nn

import lianzhi as lz
from lianzhi import deploy, measure
from lianzhi.errors import GraphError, RecipeError
from lianzhi.quantize import lint, quantize
from lianzhi.quantize.affine import FAKE_CHANNEL, FAKE_GROUPS, dequantize_symmetric, quantize_symmetric
from lianzhi.quantize.integers import with_integers
from lianzhi.quantize.rows import rounded_weight, row_scale
from lianzhi.quantize.scheme import Scheme, schemes


class Wide(nn.Module):
    """Linear layers of which one cannot be cut into groups, and a convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 128, 8)
        self.up, self.down, self.odd = nn.Linear(128, 256), nn.Linear(256, 250), nn.Linear(250, 10)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.odd(torch.relu(self.down(torch.relu(self.up(x))).mean(1)))


def wide():
    model = Wide().eval()
    flat = torch.randn(32, 6) @ torch.randn(6, 3 * 9 * 9)
    return model, flat.reshape(32, 3, 9, 9) / 6**0.5


def close(found, expected, share=1e-3):
    return (found - expected).square().mean() < share * expected.square().mean()


def test_a_group_is_a_row_of_its_own():
    weight, scheme = (
        torch.randn(4, 96) * torch.logspace(-2, 2, 96),
        Scheme(4, per_channel=True, group_size=32),
    )
    scale = torch.stack([row_scale(part, scheme) for part in weight.split(32, 1)], 1)
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    expected = torch.cat(
        [
            FAKE_CHANNEL(part, scale[:, index], zero[:, index], 0, -7, 7)
            for index, part in enumerate(weight.split(32, 1))
        ],
        1,
    )
    found = FAKE_GROUPS(weight, scale, zero, 1, -7, 7)
    assert torch.equal(found, expected)
    torch.testing.assert_close(rounded_weight(weight, scheme), expected)
    integers = quantize_symmetric(weight, scale, -7, 7, 1)
    torch.testing.assert_close(dequantize_symmetric(integers, scale, 1), expected)
    whole = rounded_weight(weight, Scheme(4, per_channel=True))
    assert (found - weight).square()[:, :32].sum() < 0.05 * (whole - weight).square()[:, :32].sum()


def test_gradients_pass_through_groups():
    weight = torch.randn(2, 64, requires_grad=True)
    scale = torch.full((2, 2), 0.1)
    FAKE_GROUPS(weight, scale, torch.zeros(2, 2, dtype=torch.int32), 1, -7, 7).sum().backward()
    inside = (weight / 0.1).round().abs() <= 7
    assert torch.equal(weight.grad, inside.float())


@pytest.mark.parametrize(
    ("weights", "size", "techniques"),
    [
        ("int4", 32, ["gptq"]),
        ("int4", 128, ["awq", {"adaround": {"steps": 5}}]),
        ("int8", 64, []),
    ],
)
def test_groups_export_and_run(weights, size, techniques, tmp_path):
    model, inputs = wide()
    options = {"weights": weights, "activations": "float", "techniques": techniques}
    quantized = quantize(model, inputs[:1], [inputs], group_size=size, **options)
    with torch.no_grad():
        expected = quantized.model(inputs)
    path = quantized.export(tmp_path / "model.onnx")
    for runtime in ("onnxruntime", "openvino"):
        assert close(deploy.load(path, runtime=runtime, threads=1)(inputs), expected)
    assert lint(path, "onnxruntime") == lint(path, "openvino") == []
    blocks = [
        {item.name: item.i for item in node.attribute}["block_size"]
        for node in onnx.load(path).graph.node
        if node.op_type == "DequantizeLinear" and len(node.attribute) > 1
    ]
    assert blocks == [size, size]
    count = sum(parameter.numel() for parameter in model.parameters())
    bits = (4 if weights == "int4" else 8) + 32 / size
    assert measure.size(path) < count * bits / 8 + 12_000
    assert quantized.report["weights"].endswith(f"per channel and {size} inputs")
    (note,) = [note for note in quantized.report["notes"] if "groups" in note]
    assert "conv, odd" in note


def test_groups_are_closer_than_channels():
    model, inputs = wide()
    options = {"weights": "int4", "activations": "float"}
    rows = [
        {row["name"]: row["weight_sqnr_db"] for row in quantized.report["layers"]}
        for quantized in (
            quantize(model, inputs[:1], [inputs], group_size=size, **options) for size in (None, 32)
        )
    ]
    assert rows[1]["up"] > rows[0]["up"]
    assert rows[1]["conv"] == rows[0]["conv"]


@pytest.mark.parametrize(
    ("net", "weights"), [(Inverted, "float16"), (Feed, "float16"), (Inverted, "bfloat16"), (Feed, "float32")]
)
def test_floats_export_and_run(net, weights, tmp_path):
    model, inputs = made(net)
    quantized = quantize(model, inputs[:1], [inputs], weights=weights, activations="float")
    with torch.no_grad():
        exact, expected = model(inputs), quantized.model(inputs)
    share = {"float16": 1e-4, "bfloat16": 1e-2, "float32": 1e-9}[weights]
    assert close(expected, exact, share)
    path = quantized.export(tmp_path / "model.onnx")
    for runtime in ("onnxruntime", "openvino"):
        found = deploy.load(path, runtime=runtime, threads=1)(inputs)
        assert found.dtype == torch.float32
        assert close(found, expected, {"float16": 1e-5}.get(weights, 1e-8))
    assert quantized.report["weights"] == weights


@pytest.mark.parametrize(("weights", "bytes_each"), [("float16", 2), ("bfloat16", 2)])
def test_floats_take_their_bytes(weights, bytes_each, tmp_path):
    model, inputs = wide()
    quantized = quantize(model, inputs[:1], None, weights=weights, activations="float")
    path = quantized.export(tmp_path / "model.onnx")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 0.95 * count * bytes_each < measure.size(path) < count * bytes_each + 12_000


def test_bfloat16_is_rounded_as_pytorch_does(tmp_path):
    model = nn.Linear(64, 64)
    with torch.no_grad():
        model.weight.view(-1)[:4] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -3.3e38, 1e-40])
    quantized = quantize(model, torch.randn(2, 64), None, weights="bfloat16", activations="float")
    stored = next(
        item
        for item in onnx.load(quantized.export(tmp_path / "model.onnx")).graph.initializer
        if item.data_type == onnx.TensorProto.BFLOAT16
    )
    bits = np.frombuffer(stored.raw_data, np.uint16).reshape(tuple(stored.dims))
    expected = model.weight.detach().bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(bits, expected) or np.array_equal(bits, expected.T)
    assert numpy_helper.to_array(stored).shape == (64, 64)


def test_values_that_float16_cannot_hold_are_named():
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight[0, 0] = 1e6
    quantized = quantize(model, torch.randn(2, 4), None, weights="float16", activations="float")
    assert quantized.report["notes"] == ["'weight' has values that float16 cannot hold; they are clipped"]
    assert float(quantized.model.weight.detach().max()) == 65504


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "float16"}, "goes with activations='float'"),
        ({"weights": "int4", "activations": "float", "group_size": 48}, "known: 32, 64, 128"),
        ({"weights": "int8", "group_size": 64}, "for integer weights alone"),
        ({"weights": "float16", "activations": "float", "group_size": 64}, "for integer weights alone"),
        (
            {"weights": "bfloat16", "activations": "float", "techniques": ["gptq"]},
            "techniques: nothing is rounded",
        ),
        (
            {"weights": "float16", "activations": "float", "max_drop": 0.0, "evaluate": id},
            "max_drop: nothing is rounded",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        quantize(nn.Linear(64, 4), torch.randn(2, 64), [torch.randn(2, 64)], **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"weights": "float16", "activations": "float"}])
def test_models_of_another_type_are_refused(dtype, options):
    data = torch.randn(2, 64, dtype=dtype)
    with pytest.raises(GraphError, match=rf"'weight' is {dtype}.* give model\.float\(\)"):
        quantize(nn.Linear(64, 4, dtype=dtype), data, [data], **options)


def test_groups_in_words():
    grid = schemes("openvino", "int4", "float", reduce_range=False, group_size=64).weights
    assert str(grid) == "int4 symmetric per channel and 64 inputs"


class Same(torch.nn.Module):
    """Convolutions that pad as TensorFlow does: more after than before."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, 2), torch.nn.Conv2d(8, 8, 5, 2, padding=1)

    def forward(self, x):
        x = torch.relu(self.first(torch.nn.functional.pad(x, (0, 1, 0, 1))))
        return self.second(torch.nn.functional.pad(x, (1, 2, 0, 1))).mean([2, 3])


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_convolutions_pad_on_their_own(target, tmp_path):
    torch.manual_seed(0)
    model, inputs = Same().eval(), torch.randn(8, 3, 16, 16) + 1
    quantized = quantize(model, inputs[:1], [inputs], target=target)
    path = quantized.export(tmp_path / "model.onnx")
    nodes = onnx.load(path).graph.node
    pads = [list(item.ints) for node in nodes for item in node.attribute if item.name == "pads"]
    assert not any(node.op_type == "Pad" for node in nodes)
    assert pads[:2] == [[0, 0, 1, 1], [1, 2, 2, 3]]
    with torch.no_grad():
        expected = quantized.model(inputs)
    found = deploy.load(path, runtime="onnxruntime", threads=1)(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("net", [Residual, Projection, Inception], ids=lambda net: net.__name__)
def test_a_module_with_integers_computes_the_same(net, tmp_path):
    model, inputs = made(net)
    quantized = quantize(model, inputs[:1], [inputs])
    module = with_integers(quantized.model)
    assert torch.equal(module(inputs), quantized.model(inputs))
    weights = [value for value in module.state_dict().values() if value.dim() >= 2 and value[0].numel() > 1]
    assert weights
    assert all(value.dtype == torch.int8 for value in weights)
    lz.save(module, tmp_path / "saved", example_inputs=inputs[:1])
    assert torch.equal(lz.load(tmp_path / "saved")(inputs), module(inputs))


@pytest.mark.parametrize("weights", ["int4", "int8"])
@pytest.mark.parametrize("group_size", [None, 32])
def test_the_runtime_multiplies_with_the_integers(weights, group_size, tmp_path):
    """A Transpose between DequantizeLinear and MatMul would have ONNX Runtime unpack the weights when it loads the file."""
    import onnxruntime

    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 96)).eval()
    inputs = torch.randn(4, 7, 64)
    form = quantize(model, inputs[:1], [inputs], weights=weights, activations="float", group_size=group_size)
    path = form.export(tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = onnxruntime.InferenceSession(str(path), options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("MatMulNBits") == 2
    with torch.no_grad():
        expected = form.model(inputs)
    found = torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
