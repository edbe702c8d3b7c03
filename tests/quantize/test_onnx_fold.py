"""What stands between convolutions goes into them, and the file computes the same."""

import foreign
import numpy as np
import onnx
import pytest
from onnx import helper

from lianzhi import deploy
from lianzhi.quantize import quantize_onnx
from lianzhi.quantize.onnx_files.prepare import prepared, read_float


def prepare(tmp_path, nodes, *held, shape=(4, 8, 8), opset=13):
    """The ops of the prepared file, once its results are found to be those of the source."""
    source = foreign.save(
        tmp_path / "f.onnx",
        nodes,
        {"x": ["n", *shape]},
        {"y": ["n", "c", "h", "w"]},
        initializers=held,
        opset=13,
    )
    made = deploy.write_onnx(prepared(read_float(source), "f"), tmp_path / "made.onnx")
    batch = foreign.rng.normal(size=(3, *shape)).astype(np.float32)
    old, new = (deploy.load(path, runtime="onnxruntime")(batch) for path in (source, made))
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in onnx.load(made).graph.node]


def held(**values):
    return [(name, np.array(value, np.float32)) for name, value in values.items()]


def test_scales_and_shifts_behind_a_convolution(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["s", "c"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["a"]),
        helper.make_node("Sub", ["a", "u"], ["b"]),
        helper.make_node("Div", ["b", "v"], ["y"]),
    ]
    values = held(s=[1.5], t=foreign.weights(1, 6, 1, 1), u=2, v=np.full((6, 1, 1), 4))
    assert prepare(tmp_path, nodes, ("w", foreign.weights(6, 4, 3, 3)), *values) == ["Conv"]


@pytest.mark.parametrize("pads", [0, 1])
def test_an_affine_before_a_convolution_only_without_padding(tmp_path, pads):
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["h"]),
        helper.make_node("Mul", ["h", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["a"]),
        helper.make_node("Conv", ["a", "w", "b"], ["y"], pads=[pads] * 4, group=2),
    ]
    size = 3 if pads else 1
    values = held(s=[3], t=[-0.7], b=foreign.weights(6, 1)[:, 0])
    found = prepare(tmp_path, nodes, ("w", foreign.weights(6, 2, size, size)), *values)
    assert found == (["Sigmoid", "Mul", "Add", "Conv"] if pads else ["Sigmoid", "Conv"])


@pytest.mark.parametrize(
    ("opset", "ops"),
    [(11, ["Conv", "HardSwish"]), (13, ["Conv", "HardSigmoid", "Mul"]), (17, ["Conv", "HardSwish"])],
)
@pytest.mark.parametrize("order", ["product first", "sixth first"])
def test_a_hard_swish_of_four_ops(tmp_path, order, opset, ops):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["k"]),
    ]
    if order == "product first":
        nodes += [helper.make_node("Mul", ["c", "k"], ["p"]), helper.make_node("Div", ["p", "six"], ["y"])]
    else:
        nodes += [helper.make_node("Div", ["k", "six"], ["g"]), helper.make_node("Mul", ["c", "g"], ["y"])]
    values = held(three=[3], zero=0, six=6)
    assert prepare(tmp_path, nodes, ("w", foreign.weights(6, 4, 1, 1)), *values) == [
        "Conv",
        "HardSigmoid",
        "Mul",
    ]


def test_what_others_read_is_left_alone(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Conv", ["x", "w"], ["d"]),
        helper.make_node("Add", ["d", "s"], ["e"]),
        helper.make_node("Add", ["m", "e"], ["f"]),
        helper.make_node("Mul", ["f", "wide"], ["y"]),
    ]
    values = held(s=[2], wide=foreign.weights(1, 1, 1, 8))
    found = prepare(tmp_path, nodes, ("w", foreign.weights(6, 4, 1, 1)), *values)
    assert found.count("Mul") == 2
    assert found.count("Add") >= 1


def test_an_activation_is_not_quantized_inside(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["g"]),
        helper.make_node("Mul", ["g", "c"], ["m"]),
        helper.make_node("Conv", ["m", "v"], ["y"]),
    ]
    weights = [("w", foreign.weights(6, 4, 1, 1)), ("v", foreign.weights(6, 6, 1, 1))]
    source = foreign.save(
        tmp_path / "f.onnx",
        nodes,
        {"x": ["n", 4, 8, 8]},
        {"y": ["n", 6, 8, 8]},
        initializers=weights,
        opset=13,
    )
    batches = [foreign.rng.normal(size=(4, 4, 8, 8)).astype("f") for _ in range(3)]
    for target, values in (("onnxruntime", ["x", "c", "m", "y"]), ("openvino", ["x", "m"])):
        report = quantize_onnx(source, batches, target=target, output=tmp_path / "o.onnx", measure=False)
        assert [row["name"] for row in report["values"]] == values
