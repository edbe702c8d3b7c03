"""The target `tensorrt`: where its quantizers stand, and what NVIDIA's own parser and builder say of the files."""

import copy
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from nets import Dense, Feed, Inception, Inverted, Projection, Residual, Wide, made
from onnx import helper, numpy_helper

from lianzhi import deploy
from lianzhi.deploy.tensorrt import builder, library
from lianzhi.errors import TargetError
from lianzhi.graph import capture
from lianzhi.graph.trace import quiet
from lianzhi.quantize import lint, quantize
from lianzhi.quantize.fold import fold_batch_norm
from lianzhi.quantize.placement import RULES, place
from lianzhi.quantize.prepare import prepare
from lianzhi.quantize.scheme import schemes

aten = torch.ops.aten


def placed(net):
    model, inputs = made(net)
    module = copy.deepcopy(capture(model, inputs).module)
    prepare(module)
    fold_batch_norm(module)
    return place(module, RULES["tensorrt"], lambda name: False)


def quantized(net, **options):
    model, inputs = made(net)
    return quantize(model, inputs[:1], list(inputs.split(16)), target="tensorrt", **options), inputs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each network's quantized form, its inputs and its file."""
    kept = {}

    def get(net):
        if net not in kept:
            form, inputs = quantized(net)
            kept[net] = form, inputs, form.export(tmp_path_factory.mktemp("trt") / "model.onnx")
        return kept[net]

    return get


def test_scheme():
    grid = schemes("tensorrt", "int8", "int8", reduce_range=True)
    assert (grid.activations.qmin, grid.activations.qmax, grid.integer_bias) == (-128, 127, False)
    assert (grid.weights.qmin, grid.weights.qmax) == (-127, 127)  # a GPU does not saturate


def test_of_a_sum_only_the_branch_that_is_no_convolution_s_own_is_quantized():
    placement = placed(Wide)
    values = {node.name for node in placement.values}
    # the input, every input of a convolution, and of the projection's sum the branch that runs first
    assert values == {"x", "relu", "relu_1", "relu_2", "conv2d_3", "relu_3"}
    assert [node.name for node in placement.weights] == [
        "conv2d",
        "conv2d_1",
        "conv2d_2",
        "conv2d_3",
        "conv2d_4",
        "conv_transpose2d",
    ]


def test_what_is_too_narrow_stays_float():
    left = dict(placed(Residual).left)
    assert "8 to 16" in left["conv2"]
    assert "matrix and a vector" in left["linear"] or "below 16" in left["linear"]
    assert "conv1" not in left  # the first layer


def test_concatenated_values_have_one_scale():
    form, inputs = quantized(Dense)
    scales = {row["name"]: row["scale"] for row in form.report["values"]}
    assert len(scales) == 2  # the input; everything that is concatenated
    root = next(row for row in form.report["values"] if row["name"] != "x")
    bounds = quantized(Dense, observer="minmax")[0].table.ranges[root["name"]]
    model = made(Dense)[0]
    with torch.no_grad():
        a = torch.relu(model.a(inputs))
        ab = torch.cat([a, torch.relu(model.b(a)) * 3], 1)
        whole = torch.cat([ab, model.c(ab)], 1)
    assert bounds == pytest.approx((float(whole.min()), float(whole.max())), rel=1e-5)


@pytest.mark.parametrize("net", [Wide, Dense, Residual, Projection, Inverted, Inception, Feed])
def test_the_file_computes_what_the_module_does(net, files):
    form, inputs, path = files(net)
    assert lint(path, "tensorrt") == []
    session = deploy.load(path, runtime="onnxruntime")
    with torch.no_grad():
        expected = form.model(inputs)
    found = session(inputs)
    step = max(row["scale"] for row in form.report["values"])
    difference = (found - expected).abs().flatten()
    assert float(difference.quantile(0.99)) <= 2 * step
    assert form.report["output_sqnr_db"] > 15


def test_no_integer_bias_and_no_zero_point(files):
    proto = onnx.load(files(Wide)[2])
    kinds = {tensor.data_type for tensor in proto.graph.initializer}
    assert onnx.TensorProto.INT32 not in kinds
    assert onnx.TensorProto.UINT8 not in kinds
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and not tensor.dims:
            assert not numpy_helper.to_array(tensor).any()


@pytest.mark.parametrize("net", [Wide, Dense, Inverted, Feed])
def test_nvidia_builds_an_engine(net, files, tmp_path):
    tensorrt = pytest.importorskip("tensorrt_rtx_bindings") and deploy.tensorrt
    path = files(net)[2]
    assert tensorrt.check(path) == []
    report = tensorrt.build(path, tmp_path / "model.rtx.engine", compute_capability="8.9")
    assert (tmp_path / "model.rtx.engine").stat().st_size == report.bytes > 0
    assert "built by TensorRT-RTX" in str(report)
    assert "for SM 8.9, not executed" in str(report)


def test_the_parser_refuses_what_the_lint_finds(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    path = exported(Residual, "onnxruntime")[2]
    rules = {finding.rule for finding in lint(path, "tensorrt")}
    assert {"integer-bias", "affine-activations"} <= rules
    assert deploy.tensorrt.check(path)
    with pytest.raises(TargetError, match=r"parser refuses it: .*zero point"):
        deploy.tensorrt.build(path, tmp_path / "model.rtx.engine")
    assert not list(tmp_path.iterdir())


def test_onnx_runtime_s_own_default_is_refused(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    model, inputs = made(Wide)
    source = deploy.export_onnx(model, inputs[:1], tmp_path / "float.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"input": inputs.numpy()}])

        def get_next(self):
            return next(self.batches, None)

    with quiet():
        quantize_static(str(source), str(tmp_path / "peer.onnx"), Reader())
    rules = {finding.rule for finding in lint(tmp_path / "peer.onnx", "tensorrt")}
    assert {"integer-bias", "affine-activations", "per-tensor-weights"} <= rules
    assert deploy.tensorrt.check(tmp_path / "peer.onnx")


# -- each rule, on a defect put in by hand ------------------------------------------------------------------


def rules_of(proto, tmp_path):
    onnx.save(proto, tmp_path / "changed.onnx")
    findings = lint(tmp_path / "changed.onnx", "tensorrt")
    assert all(finding.node and finding.message and finding.fix for finding in findings)
    return {finding.rule for finding in findings}


def writers(proto):
    return [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]


def test_rule_quantized_twice(files, tmp_path):
    proto = onnx.load(files(Wide)[2])
    second = copy.deepcopy(writers(proto)[1])
    second.output[0], second.name = "again", "again"
    proto.graph.node.append(second)
    assert rules_of(proto, tmp_path) == {"quantized-twice"}


def test_rule_integer_operators(files, tmp_path):
    proto = onnx.load(files(Wide)[2])
    name = writers(proto)[0].input[0]
    proto.graph.node.append(
        helper.make_node("DynamicQuantizeLinear", [name], ["q", "s", "z"], name="dynamic")
    )
    assert rules_of(proto, tmp_path) == {"integer-operators"}


def test_rule_per_channel_activations(files, tmp_path):
    proto = onnx.load(files(Wide)[2])
    scale = next(item for item in proto.graph.initializer if item.name == writers(proto)[1].input[1])
    scale.CopyFrom(numpy_helper.from_array(np.full(16, 0.1, np.float32), scale.name))
    assert "per-channel-activations" in rules_of(proto, tmp_path)


def test_rule_concatenated_scales_differ(tmp_path):
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 16]) for name in ("a", "b", "c")
    ]
    made_of = {"s0": np.float32(0.1), "s1": np.float32(0.2), "z": np.int8(0)}
    nodes = []
    for index, name in enumerate("ab"):
        nodes.append(
            helper.make_node("QuantizeLinear", [name, f"s{index}", "z"], [f"{name}q"], name=f"{name}q")
        )
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}q", f"s{index}", "z"], [f"{name}d"], name=f"{name}d"
            )
        )
    nodes.append(helper.make_node("Concat", ["ad", "bd"], ["c"], name="cat", axis=1))
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in made_of.items()]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:], initial)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert rules_of(proto, tmp_path) == {"concatenated-scales-differ"}


def test_rule_sum_quantized_on_both_sides(files, tmp_path):
    proto = onnx.load(files(Wide)[2])
    nodes = list(proto.graph.node)
    makers = {node.output[0]: node for node in nodes}
    add = next(node for node in nodes if node.op_type == "Add")
    place = next(i for i, name in enumerate(add.input) if makers[name].op_type == "Conv")
    source, like = add.input[place], writers(proto)[1]
    write = helper.make_node("QuantizeLinear", [source, *like.input[1:]], ["more_q"], name="more_q")
    read = helper.make_node("DequantizeLinear", ["more_q", *like.input[1:]], ["more"], name="more")
    add.input[place] = "more"
    index = nodes.index(add)
    for item in (read, write):
        proto.graph.node.insert(index, item)
    assert rules_of(proto, tmp_path) == {"sum-quantized-on-both-sides"}


def test_rule_too_few_channels(exported, tmp_path):
    path = exported(Residual, "onnxruntime")[2]
    found = {(finding.rule, finding.message) for finding in lint(path, "tensorrt")}
    assert any(rule == "too-few-channels" and "8 to 16" in message for rule, message in found)


def test_a_processor_that_saturates_is_nothing_to_a_gpu(monkeypatch):
    monkeypatch.setattr("lianzhi.quantize.workflow.measure.cpu", lambda: SimpleNamespace(saturates=True))
    model, inputs = made(Residual)
    for asked in (None, True):
        report = quantize(model, inputs[:1], [inputs], target="tensorrt", reduce_range=asked).report
        assert not report["reduce_range"]
        assert any("8 bits" in note for note in report["notes"]) == bool(asked)  # what was asked is not done
    assert quantize(model, inputs[:1], [inputs], target="openvino").report["reduce_range"]


def test_the_classic_library_builds_for_the_gpu_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    classic = library.Library(None, "TensorRT", "10.13", rtx=False)
    assert builder._capability(classic, None) == "9.0"
    with pytest.raises(TargetError, match=r"SM 9\.0, and not for 8\.9"):
        builder._capability(classic, "8.9")
