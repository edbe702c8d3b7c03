"""Files that are unlike what other tests make: each works, or is refused with a clear message."""

import foreign
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lianzhi import deploy
from lianzhi.errors import LianzhiError
from lianzhi.quantize import quantize_onnx
from lianzhi.quantize.affine import sqnr

OPTIONS = {"target": "onnxruntime", "measure": False, "reduce_range": False}


def compared(source, batches, tmp_path, **options):
    """Quantize, and the ratio of the results of a batch, which both files take."""
    output = tmp_path / "int8.onnx"
    report = quantize_onnx(source, batches, output=output, **{**OPTIONS, **options})
    onnx.checker.check_model(onnx.load(output), full_check=True)
    exact, found = (deploy.load(path, runtime="onnxruntime")(batches[0]) for path in (source, output))
    return report, sqnr(exact, found)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12])
def test_old_opsets(tmp_path, opset):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c0"], ["y"], transB=1),
    ]
    held = [
        ("w", foreign.weights(8, 3, 3, 3)), ("b", foreign.weights(8, 1)[:, 0]), ("v", foreign.weights(5, 288)),
        ("c0", foreign.weights(5, 1)[:, 0]),
    ]  # fmt: skip
    inputs = {"x": ["n", 3, 12, 12], **{name: value.shape for name, value in held}}
    source = foreign.save(
        tmp_path / "f.onnx", nodes, inputs, {"y": ["n", 5]}, initializers=held, opset=opset, ir=3
    )
    report, ratio = compared(source, foreign.images(), tmp_path)
    assert len(report["layers"]) == 2
    assert ratio > 25


def test_every_dimension_is_free(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"]),
    ]
    held = [("w", foreign.weights(8, 3, 3, 3)), ("v", foreign.weights(4, 8, 1, 1))]
    free = [None, None, None, None]
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": free}, {"y": free}, initializers=held, opset=13, ir=8
    )
    batches = [foreign.rng.normal(size=(1 + index, 3, 8, 9 + index)).astype("f") for index in range(4)]
    report, ratio = compared(source, batches, tmp_path, max_drop=0.9)
    assert len(report["layers"]) == 2
    assert ratio > 25
    assert report["control"]["met"]


def unnamed(path, name=""):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name=name),
        helper.make_node("Tanh", ["a"], ["t"], name=name),
        helper.make_node("MatMul", ["t", "v"], ["y"], name=name),
    ]
    held = [("w", foreign.weights(8, 8)), ("v", foreign.weights(8, 4))]
    return foreign.save(path, nodes, {"x": ["n", 8]}, {"y": ["n", 4]}, initializers=held, opset=13, ir=8)


def test_nodes_without_names(tmp_path):
    """The report and accuracy control tell layers apart by what they make."""
    source, batches = unnamed(tmp_path / "f.onnx"), [foreign.weights(16, 8) for _ in range(4)]
    report, ratio = compared(source, batches, tmp_path)
    assert [row["name"] for row in report["layers"]] == ["MatMul 'a'", "MatMul 'y'"]
    assert ratio > 25

    def evaluate(session):
        exact = deploy.load(source, runtime="onnxruntime")(batches[0])
        return -float((session(batches[0]) - exact).abs().max())

    report, _ = compared(source, batches, tmp_path, max_drop=0, evaluate=evaluate)
    assert set(report["control"]["returned"]) == {"MatMul 'a'", "MatMul 'y'"}
    assert report["quantized"] == "none"


def test_nodes_of_the_same_name_are_refused(tmp_path):
    source = unnamed(tmp_path / "f.onnx", "same")
    with pytest.raises(LianzhiError, match="two nodes with same node name"):
        quantize_onnx(source, [foreign.weights(16, 8)], output=tmp_path / "int8.onnx", **OPTIONS)
    assert not (tmp_path / "int8.onnx").exists()


def test_one_constant_is_the_weight_and_the_bias_of_several_layers(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "shared"], ["e"]),
        helper.make_node("Mul", ["e", "shared"], ["m"]),
        helper.make_node("Conv", ["m", "v", "b"], ["y"]),
    ]
    held = [
        ("w", foreign.weights(6, 6, 3, 3)), ("v", foreign.weights(6, 6, 1, 1)), ("b", foreign.weights(6, 1)[:, 0]),
        ("shared", np.array([0.7], np.float32)),
    ]  # fmt: skip
    source = foreign.save(
        tmp_path / "f.onnx",
        nodes,
        {"x": ["n", 6, 8, 8]},
        {"y": ["n", 6, 8, 8]},
        initializers=held,
        opset=13,
        ir=8,
    )
    report, ratio = compared(
        source, [foreign.rng.normal(size=(8, 6, 8, 8)).astype("f") for _ in range(3)], tmp_path
    )
    assert len(report["layers"]) == 3
    assert ratio > 25


def test_a_branch_reads_a_weight_and_a_value_of_the_main_graph(tmp_path):
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("t", "e")]
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("MatMul", ["h", "w"], ["t"])], "then", [], outputs[:1]
        ),
        "else_branch": helper.make_graph([helper.make_node("Neg", ["h"], ["e"])], "else", [], outputs[1:]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="main"),
        helper.make_node("If", ["flag"], ["y"], name="choice", **branches),
    ]
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": ["n", 8], "flag": []}, {"y": ["n", 8]},
        initializers=[("w", foreign.weights(8, 8))], opset=13, ir=8, flag=TensorProto.BOOL,
    )  # fmt: skip
    batches = [{"x": foreign.weights(16, 8), "flag": np.array(bool(index % 2))} for index in range(4)]
    report, ratio = compared(source, batches, tmp_path)
    assert [row["name"] for row in report["layers"]] == ["main"]
    assert ratio > 25


def test_the_body_of_a_loop(tmp_path):
    described = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 8]),
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 8]),
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("MatMul", ["state", "w"], ["next"])],
        "body", described[:3], described[3:],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"], name="main"),
        helper.make_node("Loop", ["times", "", "h"], ["y"], name="loop", body=body),
    ]
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, opset=13, ir=8,
        initializers=[("w", foreign.weights(8, 8)), ("v", foreign.weights(8, 8)), ("times", np.array(3, np.int64))],
    )  # fmt: skip
    report, ratio = compared(source, [foreign.weights(16, 8) for _ in range(3)], tmp_path)
    assert [row["name"] for row in report["layers"]] == ["main"]
    assert "branches hold 1 layers" in report["left_float"][0]["reason"]
    assert ratio > 25


def external(tmp_path):
    source = foreign.residual(tmp_path / "inside.onnx", opset=13, ir=8)
    proto = onnx.load(source)
    for node in [item for item in proto.graph.node if item.op_type == "Constant"]:
        proto.graph.initializer.append(node.attribute[0].t)
        proto.graph.initializer[-1].name = node.output[0]
        proto.graph.node.remove(node)
    onnx.save_model(
        proto, tmp_path / "float.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0
    )
    return tmp_path / "float.onnx"


def test_weights_in_a_file_beside_and_all_techniques(tmp_path):
    source = external(tmp_path)
    _, ratio = compared(source, foreign.images(), tmp_path, max_drop=0.5)
    assert ratio > 25
    assert not [
        item
        for item in tmp_path.iterdir()
        if item.name not in ("inside.onnx", "float.onnx", "beside.bin", "int8.onnx")
    ]


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_file_beside_that_is_missing_or_too_short(tmp_path, damage):
    source = external(tmp_path)
    beside = tmp_path / "beside.bin"
    beside.unlink() if damage == "missing" else beside.write_bytes(beside.read_bytes()[:100])
    with pytest.raises(LianzhiError, match=r"beside\.bin|side file cannot be read"):
        quantize_onnx(source, foreign.images(), output=tmp_path / "int8.onnx", **OPTIONS)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_weight_that_is_not_finite(tmp_path):
    weight = foreign.weights(8, 4)
    weight[2, 1] = np.nan
    source = foreign.save(
        tmp_path / "f.onnx", [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
        {"x": ["n", 8]}, {"y": ["n", 4]}, initializers=[("w", weight)], opset=13, ir=8,
    )  # fmt: skip
    with pytest.raises(LianzhiError, match=r"weight of .* holds NaN"):
        quantize_onnx(source, [foreign.weights(4, 8)], output=tmp_path / "int8.onnx", **OPTIONS)
    assert not (tmp_path / "int8.onnx").exists()


def test_channels_that_are_always_zero(tmp_path):
    weight = foreign.weights(8, 3, 1, 1)
    weight[[1, 5]] = 0
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["y"], group=8),
    ]
    held = [("w", weight), ("d", foreign.weights(8, 1, 3, 3))]
    source = foreign.save(
        tmp_path / "f.onnx",
        nodes,
        {"x": ["n", 3, 12, 12]},
        {"y": ["n", 8, 10, 10]},
        initializers=held,
        opset=13,
        ir=8,
    )
    _, ratio = compared(source, foreign.images(), tmp_path)
    stored = [numpy_helper.to_array(item) for item in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    assert all(np.isfinite(item).all() for item in stored if item.dtype == np.float32)
    assert ratio > 25
