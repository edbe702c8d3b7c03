"""The lint finds a defect put in by hand, and those of a peer's defaults."""

import numpy as np
import onnx
import pytest
import torch
from nets import Residual, made
from onnx import helper, numpy_helper

from lianzhi import deploy
from lianzhi.errors import RecipeError, TargetError
from lianzhi.graph.trace import quiet
from lianzhi.quantize import lint, quantize
from lianzhi.quantize.rules import RULES


@pytest.fixture
def good(exported):
    return exported(Residual)[2]


def rules_of(proto, tmp_path, target="onnxruntime"):
    path = tmp_path / "changed.onnx"
    onnx.save(proto, path)
    findings = lint(path, target)
    assert all(finding.node and finding.message and finding.fix for finding in findings)
    return {finding.rule for finding in findings}


def tensor(proto, ending):
    return next(item for item in proto.graph.initializer if item.name.endswith(ending))


def test_a_good_file(good):
    assert lint(good, "onnxruntime") == []
    assert lint(good, "openvino") == []


def test_bad_scale(good, tmp_path):
    proto = onnx.load(good)
    item = tensor(proto, "relu.scale")
    item.CopyFrom(numpy_helper.from_array(np.float32(0), item.name))
    assert rules_of(proto, tmp_path) == {"bad-scale"}


def test_symmetric_activations(good, tmp_path):
    proto = onnx.load(good)
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            for item in proto.graph.initializer:
                if item.name == node.input[2] and item.data_type == onnx.TensorProto.UINT8:
                    item.CopyFrom(numpy_helper.from_array(np.int8(0), item.name))
    assert rules_of(proto, tmp_path) == {"symmetric-activations"}
    assert rules_of(proto, tmp_path, "openvino") == set()


def test_quantizer_before_relu(good, tmp_path):
    proto = onnx.load(good)
    nodes = list(proto.graph.node)
    index, relu = next((i, node) for i, node in enumerate(nodes) if node.op_type == "Relu")
    after = next(
        node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] == relu.output[0]
    )
    proto.graph.node.insert(
        index, helper.make_node("QuantizeLinear", [relu.input[0], *after.input[1:]], ["q"], name="q")
    )
    proto.graph.node.insert(index + 1, helper.make_node("DequantizeLinear", ["q", *after.input[1:]], ["dq"]))
    relu.input[0] = "dq"
    assert "quantizer-before-relu" in rules_of(proto, tmp_path)


def test_weights_in_float(good, tmp_path):
    proto = onnx.load(good)
    reader = next(node for node in proto.graph.node if node.input[0].endswith("conv2.weight_int8"))
    item = tensor(proto, "conv2.weight_int8")
    proto.graph.initializer.append(
        numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), "conv2.weight")
    )
    index = list(proto.graph.node).index(reader)
    proto.graph.node.insert(
        index, helper.make_node("QuantizeLinear", ["conv2.weight", *reader.input[1:]], ["wq"], axis=0)
    )
    reader.input[0] = "wq"
    assert rules_of(proto, tmp_path) == {"float-weights"}


def test_half_quantized_and_open_end(good, tmp_path):
    proto = onnx.load(good)
    reader = next(node for node in proto.graph.node if node.input[0].endswith("conv2.weight_int8"))
    conv = next(node for node in proto.graph.node if reader.output[0] in node.input)
    item = tensor(proto, "conv2.weight_int8")
    proto.graph.initializer.append(
        numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), "w")
    )
    conv.input[1] = "w"
    assert rules_of(proto, tmp_path) == {"half-quantized"}
    proto = onnx.load(good)
    conv = next(
        node for node in proto.graph.node if node.op_type == "Conv" and node.output[0] == conv.output[0]
    )
    extra = onnx.ValueInfoProto()
    extra.CopyFrom(proto.graph.output[0])
    extra.name = conv.output[0]
    proto.graph.output.append(extra)
    assert rules_of(proto, tmp_path) == {"output-not-quantized"}


def test_per_tensor_weights_and_scales_that_change(good, tmp_path):
    proto = onnx.load(good)
    reader = next(node for node in proto.graph.node if node.input[0].endswith("conv2.weight_int8"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "one"))
    proto.graph.initializer.append(numpy_helper.from_array(np.int8(0), "none"))
    reader.input[1], reader.input[2] = "one", "none"
    assert rules_of(proto, tmp_path) == {"per-tensor-weights"}
    proto = onnx.load(good)
    move = next(node for node in proto.graph.node if node.op_type == "Slice")
    after = next(
        node
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == move.output[0]
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.123), "other"))
    after.input[1] = "other"
    assert "scale-changes-in-a-move" in rules_of(proto, tmp_path)


def test_batch_norm_and_the_peers_defaults(tmp_path):
    """ONNX Runtime's own tool on a file whose BatchNorm the exporter did not fold, with its default types."""
    model, inputs = made(Residual)
    raw = tmp_path / "raw.onnx"
    with quiet():
        torch.onnx.export(model, (inputs[:1],), raw, optimize=False, verbose=False, external_data=False)
    quantized = tmp_path / "peer.onnx"
    _ort_static(raw, quantized, inputs, symmetric=True)
    found = {finding.rule for finding in lint(quantized, "onnxruntime")}
    assert {"symmetric-activations", "batch-norm-not-folded"} <= found


def _ort_static(source, target, inputs, *, symmetric=False):
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):
        def __init__(self):
            name = onnx.load(source).graph.input[0].name
            free = onnx.load(source).graph.input[0].type.tensor_type.shape.dim[0].dim_param
            size = len(inputs) if free else 1
            self.batches = iter([{name: part.numpy()} for part in inputs.split(size)])

        def get_next(self):
            return next(self.batches, None)

    ort.quantize_static(
        source,
        target,
        Reader(),
        per_channel=True,
        reduce_range=not symmetric,
        activation_type=ort.QuantType.QInt8 if symmetric else ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
    )


def test_a_peer_as_oracle(good, tmp_path):
    """ONNX Runtime's static quantization of the same model with the same data: ours is as near to float."""
    model, inputs = made(Residual)
    raw = deploy.export_onnx(model, inputs[:1], tmp_path / "float.onnx")
    _ort_static(raw, tmp_path / "peer.onnx", inputs)
    ours = good
    with torch.no_grad():
        exact = model(inputs)
    errors = {}
    for name, path in (("peer", tmp_path / "peer.onnx"), ("ours", ours)):
        found = deploy.load(path, runtime="onnxruntime", threads=1)(inputs)
        errors[name] = float((found - exact).square().mean() / exact.square().mean())
    assert errors["ours"] < 2e-3
    assert errors["ours"] < 1.2 * errors["peer"]


def test_a_reduction_that_openvino_gets_wrong(tmp_path):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x).flatten(2).mean(2)

    inputs = torch.randn(8, 3, 8, 8)
    for target, found in (("onnxruntime", {"reduces-reshaped-integers"}), ("openvino", set())):
        path = quantize(Flat().eval(), inputs[:1], [inputs], target=target, reduce_range=True).export(
            tmp_path / "m.onnx"
        )
        assert {finding.rule for finding in lint(path, "openvino")} == found


def test_the_first_layer_may_be_narrow_on_tensorrt(tmp_path):
    """As placement has it: of convolutions and transposed ones; a narrow one behind it is found, with its channels."""
    layers = torch.nn.ConvTranspose2d(3, 16, 3), torch.nn.ReLU(), torch.nn.ConvTranspose2d(16, 32, 3)
    inputs = torch.randn(4, 3, 8, 8)
    quantized = quantize(torch.nn.Sequential(*layers).eval(), inputs[:1], [inputs], target="tensorrt")
    path = quantized.export(tmp_path / "m.onnx")
    assert not quantized.report["left_float"]
    assert lint(path, "tensorrt") == []
    proto = onnx.load(path)
    first = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    proto.graph.node.insert(0, helper.make_node("Relu", [first.input[0]], ["positive"]))
    first.input[0] = "positive"  # now another op is the first
    onnx.save(proto, path)
    (found,) = lint(path, "tensorrt")
    assert found.rule == "too-few-channels"
    assert found.message.startswith("ConvTranspose of 3 to 16")


def test_every_rule_has_targets_and_is_named_once():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(
        set(rule.targets) <= {"onnxruntime", "openvino", "tensorrt"} and rule.targets for rule in RULES
    )


def test_bad_calls(good, tmp_path):
    with pytest.raises(RecipeError, match="no rules for target 'onnxruntim'; did you mean 'onnxruntime'"):
        lint(good, "onnxruntim")
    (tmp_path / "no.onnx").write_text("text")
    with pytest.raises(TargetError, match="not an ONNX file"):
        lint(tmp_path / "no.onnx", "onnxruntime")
