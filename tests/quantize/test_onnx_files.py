"""Files made elsewhere: what is quantized, what stays float and why, and what is refused."""

import json

import foreign
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from foreign import quantized, run
from nets import Residual, made
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from lianzhi import deploy, files
from lianzhi.errors import ArtifactError, DataError, RecipeError, TargetError
from lianzhi.quantize import lint, quantize_onnx
from lianzhi.quantize.affine import sqnr


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_constants_batch_norm_and_a_residual_sum(tmp_path, target):
    source = foreign.residual(tmp_path / "float.onnx")
    before, batches = source.read_bytes(), foreign.images()
    report, output = quantized(source, batches, tmp_path, target)
    assert source.read_bytes() == before
    assert [row["type"] for row in report["layers"]] == ["Conv", "Conv", "Gemm"]
    assert report["left_float"] == []
    assert report["lint"] == [] == lint(output, target)
    assert report["worth_it"] is None
    assert report["output_sqnr_db"] > 25
    assert json.loads(json.dumps(files.finite(report)))["quantized"] == "all layers"
    assert not [node for node in onnx.load(output).graph.node if node.op_type == "BatchNormalization"]
    for runtime in ("onnxruntime", target):
        assert sqnr(run(source, batches[0]), run(output, batches[0], runtime)) > 25
        assert run(output, batches[0][:3], runtime).shape == (3, 10)


def test_weights_are_per_channel_and_biases_are_integers(tmp_path):
    _, output = quantized(foreign.residual(tmp_path / "float.onnx"), foreign.images(), tmp_path)
    graph = onnx.load(output).graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    readers = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    kinds = sorted((stored[node.input[0]].dtype.name, stored[node.input[1]].shape) for node in readers)
    assert kinds == [
        ("int32", (8,)),
        ("int32", (8,)),
        ("int32", (10,)),
        *[("int8", (8,))] * 2,
        ("int8", (10,)),
    ]
    assert not [item for item in stored.values() if item.dtype == np.float32 and item.size > 10]


def test_a_product_on_the_grid_is_exact(tmp_path):
    """Inputs 0…255 in steps of 1/4, weights -127…127 in steps of 1/8: int8 loses nothing."""
    weight = np.array([[127, -127], [3, 5]], np.float32) / 8
    source = foreign.save(
        tmp_path / "f.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["n", 2]},
        {"y": ["n", 2]},
        initializers=[("w", weight)],
        opset=13,
    )
    batch = np.array([[0, 255], [17, 4]], np.float32) / 4
    report, output = quantized(source, [batch], tmp_path, observer="minmax")
    assert [(row["scale"], row["zero_point"]) for row in report["values"]] == [(0.25, 0)]
    np.testing.assert_array_equal(*foreign.integers(output).values(), weight * 8)
    np.testing.assert_array_equal(run(output, batch), batch @ weight)


def test_the_same_integers_as_the_module_gets(tmp_path, exported):
    inputs, mine, peer = exported(Residual)
    source = deploy.export_onnx(made(Residual)[0], inputs[:1], tmp_path / "float.onnx")
    report, output = quantized(source, list(inputs.split(16)), tmp_path, reduce_range=True, techniques=())
    ours, theirs = (sorted(map(bytes, foreign.integers(path).values())) for path in (output, peer))
    different = sum(
        a != b for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )
    assert different <= 2  # BatchNorm is folded in float32 there, and in float64 here
    assert len(report["values"]) == len(mine.report["values"])
    assert abs(report["output_sqnr_db"] - mine.report["output_sqnr_db"]) < 1


def test_as_good_as_onnx_runtimes_own(tmp_path):
    source, batches = foreign.residual(tmp_path / "float.onnx", opset=13, ir=8), foreign.images()

    class Reader(CalibrationDataReader):
        left = iter(batches)

        def get_next(self):
            batch = next(self.left, None)
            return None if batch is None else {"x": batch}

    _, output = quantized(source, batches, tmp_path)
    pre = tmp_path / "pre.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(pre)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options)
    quantize_static(
        pre, tmp_path / "ort.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    fresh = foreign.images(8)
    exact = torch.cat([run(source, batch) for batch in fresh])
    ours, theirs = (
        sqnr(exact, torch.cat([run(path, batch) for batch in fresh]))
        for path in (output, tmp_path / "ort.onnx")
    )
    assert ours > theirs - 0.5


def test_integer_inputs_and_products_of_computed_values(tmp_path):
    batches = [{"ids": foreign.rng.integers(0, 50, (2, length))} for length in (5, 9, 7)]
    report, output = quantized(foreign.tokens(tmp_path / "float.onnx"), batches, tmp_path)
    assert [row["name"] for row in report["layers"]] == ["query", "out"]
    assert {row["name"]: row["reason"] for row in report["left_float"]} == {
        "scores": "its weight is computed, not a constant",
        "mix": "its weight is computed, not a constant",
    }
    assert report["output_sqnr_db"] > 25
    assert run(output, torch.ones(1, 3, dtype=torch.int32)).shape == (1, 3, 8)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_large_table_is_looked_up_in_integers(tmp_path, target):
    source = foreign.tokens(tmp_path / "float.onnx", words=2100)
    batches = [{"ids": foreign.rng.integers(0, 2100, (2, length))} for length in (5, 9, 7)]
    report, output = quantized(source, batches, tmp_path, target)
    row = report["layers"][0]
    assert (row["name"], row["type"]) == ("words", "Gather")
    assert row["weight_sqnr_db"] > 40
    assert row["output_sqnr_db"] > 40
    assert report["lint"] == []
    table = next(value for name, value in foreign.integers(output).items() if value.shape == (2100, 32))
    exact = numpy_helper.to_array(onnx.load(source).graph.initializer[0])
    assert np.abs(table).max(axis=1).tolist() == [127] * 2100
    np.testing.assert_allclose(table * np.abs(exact).max(1, keepdims=True) / 127, exact, atol=0.02)
    assert output.stat().st_size < source.stat().st_size / 3
    assert sqnr(run(source, batches[0]), run(output, batches[0], target)) > 30
    assert sqnr(run(output, batches[0]), run(output, batches[0], "openvino")) > 60
    left, _ = quantized(source, batches, tmp_path, target, ignore=["words"])
    assert "words" not in {row["name"] for row in left["layers"]}
    assert {"name": "words", "reason": "ignored, as asked"} in left["left_float"]


def test_accuracy_control_may_return_a_table(tmp_path):
    source = foreign.tokens(tmp_path / "float.onnx", words=2100)
    batches = [{"ids": foreign.rng.integers(0, 2100, (2, 5))} for _ in range(4)]
    exact = run(source, batches[0])

    def closeness(session):
        return sqnr(exact, session(batches[0]))

    report, _ = quantized(source, batches, tmp_path, evaluate=closeness, max_drop=0.0)
    assert {step["layer"] for step in report["control"]["steps"]} == {"words", "query", "out"}


def test_a_table_alone_is_worth_a_file(tmp_path):
    source = foreign.tokens(tmp_path / "float.onnx", words=2100)
    batches = [{"ids": foreign.rng.integers(0, 2100, (2, 5))}]
    report, output = quantized(source, batches, tmp_path, ignore=["query", "out"])
    assert [row["name"] for row in report["layers"]] == ["words"]
    assert output.stat().st_size < 0.5 * source.stat().st_size
    assert 30 < sqnr(run(source, batches[0]), run(output, batches[0])) < 100


def test_tables_that_stay_float_are_named(tmp_path):
    source = foreign.tokens(tmp_path / "float.onnx", words=2100)
    batches = [{"ids": foreign.rng.integers(0, 2100, (2, length))} for length in (5, 9)]
    report, _ = quantized(source, batches, tmp_path, "tensorrt")
    left = {row["name"]: row["reason"] for row in report["left_float"]}
    assert "makes the whole table float" in left["words"]
    proto = onnx.load(source)
    proto.graph.input.append(helper.make_tensor_value_info("factor", onnx.TensorProto.FLOAT, [1]))
    proto.graph.node.append(helper.make_node("Mul", ["table", "factor"], ["whole"], name="whole"))
    proto.graph.output.append(helper.make_tensor_value_info("whole", onnx.TensorProto.FLOAT, [2100, 32]))
    onnx.save(proto, tmp_path / "whole.onnx")
    batches = [{**batch, "factor": np.ones(1, np.float32)} for batch in batches]
    report, _ = quantized(tmp_path / "whole.onnx", batches, tmp_path)
    left = {row["name"]: row["reason"] for row in report["left_float"]}
    assert left["words"] == "'whole' reads the same table in float"


def test_layers_in_branches_stay_float(tmp_path):
    batches = [
        {"x": foreign.rng.normal(size=(2, 2, 3)).astype("f"), "flag": np.array(True)} for _ in range(3)
    ]
    source = foreign.branches(tmp_path / "float.onnx")
    report, output = quantized(source, batches, tmp_path)
    assert report["quantized"] == "none"
    assert report["worth_it"] is False
    assert report["left_float"][0]["name"] == "choice"
    assert "branches hold 2 layers" in report["left_float"][0]["reason"]
    assert output.read_bytes() == source.read_bytes()
    source = foreign.branches(tmp_path / "float.onnx", outside=True)
    report, output = quantized(source, batches, tmp_path)
    assert [row["type"] for row in report["layers"]] == ["Conv"]
    assert sqnr(run(source, batches[0]), run(output, batches[0])) > 25


def test_weights_listed_as_inputs(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    source = foreign.save(
        tmp_path / "old.onnx",
        nodes,
        {"x": [1, 3, 8, 8], "w": [4, 3, 3, 3]},
        {"y": [1, 4, 6, 6]},
        initializers=[("w", foreign.weights(4, 3, 3, 3))],
        opset=9,
        ir=3,
    )
    report, output = quantized(source, [batch[:1, :, :8, :8] for batch in foreign.images()], tmp_path)
    assert report["output_sqnr_db"] > 30
    assert [item.name for item in onnx.load(output).graph.input] == ["x"]


def test_an_output_without_a_shape(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    held = [("w", foreign.weights(4, 3, 3, 3))]
    source = foreign.save(
        tmp_path / "open.onnx", nodes, {"x": ["n", 3, 8, 8]}, {"y": None}, initializers=held, opset=17, ir=8
    )
    report, output = quantized(source, [batch[:, :, :8, :8] for batch in foreign.images()], tmp_path)
    assert [row["name"] for row in report["layers"]] == ["Conv 'y'"]
    assert len(onnx.load(output).graph.output[0].type.tensor_type.shape.dim) == 4


def test_float16_stays_as_it_is(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    held = [("w", foreign.weights(4, 3, 3, 3).astype(np.float16))]
    half = {"x": onnx.TensorProto.FLOAT16, "y": onnx.TensorProto.FLOAT16}
    source = foreign.save(
        tmp_path / "half.onnx",
        nodes,
        {"x": ["n", 3, 8, 8]},
        {"y": ["n", 4, 6, 6]},
        initializers=held,
        opset=13,
        **half,
    )
    report, output = quantized(source, [np.ones((2, 3, 8, 8), np.float16)], tmp_path)
    assert report["quantized"] == "none"
    assert "not float32" in report["left_float"][0]["reason"]
    assert output.read_bytes() == source.read_bytes()


def test_a_result_that_others_read_too(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Conv", ["c", "v"], ["y"])]
    held = [("w", foreign.weights(8, 3, 1, 1)), ("v", foreign.weights(4, 8, 1, 1))]
    shapes = {"c": ["n", 8, 12, 12], "y": ["n", 4, 12, 12]}
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": ["n", 3, 12, 12]}, shapes, initializers=held, opset=13
    )
    report, output = quantized(source, foreign.images(), tmp_path)
    assert report["lint"] == []
    for found, wanted in zip(run(output, GOOD), run(source, GOOD), strict=True):
        assert sqnr(wanted, found) > 30


def test_weights_in_a_file_beside(tmp_path):
    source = foreign.residual(tmp_path / "inside.onnx", opset=13, ir=8)
    proto = onnx.load(source)
    for node in [item for item in proto.graph.node if item.op_type == "Constant"]:
        proto.graph.initializer.append(node.attribute[0].t)
        proto.graph.initializer[-1].name = node.output[0]
        proto.graph.node.remove(node)
    onnx.save_model(
        proto, tmp_path / "float.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0
    )
    report, output = quantized(tmp_path / "float.onnx", foreign.images(), tmp_path)
    beside = (tmp_path / "beside.bin").stat().st_size
    assert report["bytes"]["float"] == (tmp_path / "float.onnx").stat().st_size + beside
    assert sqnr(run(source, GOOD), run(output, GOOD)) > 25


def test_names_that_look_like_ours(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx", opset=13, ir=8)
    proto = onnx.load(source)
    renamed = {"c2": "r1_dequantized", "pooled": "x_scale", "flat": "x_quantized"}
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    onnx.save(proto, source)
    report, output = quantized(source, foreign.images(), tmp_path)
    assert len(report["layers"]) == 3
    assert sqnr(run(source, foreign.images()[0]), run(output, foreign.images()[0])) < 200
    assert report["output_sqnr_db"] > 25


def test_a_weight_used_twice_is_stored_once(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    held = [("w", foreign.weights(8, 8))]
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, initializers=held, opset=13
    )
    report, output = quantized(source, [foreign.weights(16, 8)], tmp_path)
    assert len(report["layers"]) == 2
    assert len(foreign.integers(output)) == 1
    assert report["output_sqnr_db"] > 25


def test_tensorrt_gets_symmetric_values_and_float_biases(tmp_path):
    source, batches = foreign.wide(tmp_path / "float.onnx"), foreign.images()
    report, output = quantized(source, batches, tmp_path, "tensorrt")
    assert [row["name"] for row in report["layers"]] == ["stem", "inner", "mixing", "up"]
    assert "fewer than 16 channels (24 to 4)" in report["left_float"][0]["reason"]
    assert report["lint"] == [] == lint(output, "tensorrt")
    assert report["notes"] == []  # NVIDIA's parser takes it, where it is installed
    assert report["output_sqnr_db"] > 25
    graph = onnx.load(output).graph
    zeros = {
        item.name: numpy_helper.to_array(item) for item in graph.initializer if "zero_point" in item.name
    }
    assert all(item.dtype == np.int8 and not item.any() for item in zeros.values())
    add = next(node for node in graph.node if node.op_type == "Add")
    assert [name.endswith("_dequantized") for name in add.input] == [False, True]
    concat = next(node for node in graph.node if node.op_type == "Concat")
    makers = {node.output[0]: node for node in graph.node}
    assert len({makers[name].input[1] for name in concat.input}) == 1


def test_float_layers_stay_float_in_onnxruntime(tmp_path):
    """Its optimizer would round the weight of a layer that reads a DequantizeLinear."""
    source, batches = foreign.wide(tmp_path / "float.onnx"), foreign.images()
    report, output = quantized(source, batches, tmp_path)
    assert {row["name"] for row in report["left_float"]} == {"up"}
    assert report["lint"] == []
    up = next(node for node in onnx.load(output).graph.node if node.op_type == "ConvTranspose")
    assert up.input[0].endswith("_float")


def test_ignored_nodes_stay_float(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    report, _ = quantized(source, foreign.images(), tmp_path, ignore=["sec*"])
    assert {"name": "second", "reason": "ignored, as asked"} in report["left_float"]
    with pytest.raises(RecipeError, match="'secnd' matches no node; did you mean 'second'"):
        quantized(source, foreign.images(), tmp_path, ignore=["secnd"])


GOOD = foreign.images(1)[0]
BAD = {
    "holds NaN": [GOOD, np.full_like(GOOD, np.nan)],
    r"shape \(8, 3, 5, 12\)": [GOOD, GOOD[:, :, :5]],
    "no input 'imput'": [GOOD, {"imput": GOOD}],
    "type <U1": [GOOD, np.array([["a"]])],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_calibration_names_the_batch(tmp_path, message):
    source = foreign.residual(tmp_path / "float.onnx")
    with pytest.raises(DataError, match=f"calibration batch 1: .*{message}"):
        quantized(source, BAD[message], tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["float.onnx"]


@pytest.mark.parametrize("calibration", [[], GOOD, {"x": GOOD}, [GOOD[:0]]])
def test_no_calibration(tmp_path, calibration):
    with pytest.raises(DataError, match=r"empty|iterable of batches"):
        quantized(foreign.residual(tmp_path / "float.onnx"), calibration, tmp_path)
    assert not (tmp_path / "int8.onnx").exists()


def test_files_that_are_refused(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    _, output = quantized(source, [GOOD], tmp_path)
    with pytest.raises(TargetError, match="quantized already"):
        quantize_onnx(output, [GOOD], target="onnxruntime", output=tmp_path / "again.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    with pytest.raises(TargetError, match="not an ONNX file"):
        quantized(tmp_path / "damaged.onnx", [GOOD], tmp_path)
    with pytest.raises(TargetError, match="no such ONNX file"):
        quantized(tmp_path / "absent.onnx", [GOOD], tmp_path)
    with pytest.raises(RecipeError, match="not offered"):
        quantized(source, [GOOD], tmp_path, target="onnxruntim")
    for name in ("float.onnx", "int8.bin", "no/int8.onnx"):
        with pytest.raises(ArtifactError):
            quantize_onnx(source, [GOOD], target="onnxruntime", output=tmp_path / name)


def test_values_that_are_not_finite(tmp_path):
    nodes = [helper.make_node("Log", ["x"], ["l"]), helper.make_node("MatMul", ["l", "w"], ["y"])]
    held = [("w", foreign.weights(4, 4))]
    source = foreign.save(
        tmp_path / "f.onnx", nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, initializers=held, opset=13
    )
    with pytest.raises(DataError, match="not finite on calibration batch 1, first at 'l'"):
        quantized(source, [np.ones((2, 4), "f"), np.zeros((2, 4), "f")], tmp_path)
