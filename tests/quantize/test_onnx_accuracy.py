"""What makes int8 files more accurate: ranges that readers tell apart, equalization, bias correction."""

import foreign
import numpy as np
import pytest
import torch
from foreign import quantized, ready
from onnx import helper

from lianzhi import deploy
from lianzhi.errors import DataError, RecipeError
from lianzhi.quantize.onnx_files.calibrate import observe
from lianzhi.quantize.onnx_files.equalize import equalize, groups
from lianzhi.quantize.onnx_files.net import Net

# what readers tell apart


@pytest.mark.parametrize(
    ("readers", "low", "high"),
    [
        ([helper.make_node("HardSwish", ["c"], ["y"])], -3, 5),
        ([helper.make_node("HardSigmoid", ["c"], ["y"], alpha=0.25, beta=0.5)], -2, 2),
        (
            [helper.make_node("HardSigmoid", ["c"], ["g"]), helper.make_node("Mul", ["g", "c"], ["y"])],
            -2.5,
            5,
        ),
        ([helper.make_node("Sigmoid", ["c"], ["y"])], -5, 5),
        ([helper.make_node("HardSwish", ["c"], ["h"]), helper.make_node("Add", ["h", "c"], ["y"])], -5, 5),
    ],
)
def test_the_range_ends_where_its_readers_see_no_difference(tmp_path, readers, low, high):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), *readers]
    held = [("w", np.ones((1, 1, 1, 1), np.float32))]
    shape = ["n", 1, 1, 11]
    _, model = ready(tmp_path, nodes, held, {"x": shape}, {"y": shape})
    batch = {"x": np.linspace(-5, 5, 11, dtype=np.float32).reshape(1, 1, 1, 11)}
    seen = observe(model, ["c"], [batch], histogram=True)["c"]
    assert (seen.low, seen.high) == pytest.approx((low, high))
    assert seen.counts.sum() == 11


def test_infinite_values_are_refused_where_a_reader_would_cut_them_off(tmp_path):
    nodes = [
        helper.make_node("Log", ["x"], ["c"]),
        helper.make_node("HardSigmoid", ["c"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    _, model = ready(tmp_path, nodes, [("w", foreign.weights(2, 2))], {"x": ["n", 2]}, {"y": ["n", 2]})
    with pytest.raises(DataError, match="not finite on calibration batch 0, first at 'c'"):
        observe(model, ["c"], [{"x": np.zeros((1, 2), np.float32)}], histogram=True)


# equalization


def uneven(*shape):
    """Weights whose output channels differ by a factor of up to a thousand."""
    factors = np.logspace(-2, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (foreign.weights(*shape) * factors).astype(np.float32)


def patterns():
    return {
        "depthwise": (
            [
                helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
                helper.make_node("Conv", ["c", "d", "b"], ["y"], group=8, pads=[1, 1, 1, 1]),
            ],
            [
                ("w", uneven(8, 4, 1, 1)),
                ("d", foreign.weights(16, 1, 3, 3)),
                ("b", foreign.weights(16, 1)[:, 0]),
            ],
        ),
        "affine": (
            [
                helper.make_node("Conv", ["x", "w"], ["c"]),
                helper.make_node("HardSwish", ["c"], ["h"]),
                helper.make_node("Mul", ["s", "h"], ["m"]),
                helper.make_node("Add", ["m", "t"], ["a"]),
                helper.make_node("Conv", ["a", "d"], ["y"], group=8, pads=[1, 1, 1, 1]),
            ],
            [
                ("w", uneven(8, 4, 1, 1)),
                ("s", np.array([1.5], np.float32)),
                ("t", np.array([-0.2], np.float32)),
                ("d", foreign.weights(8, 1, 3, 3)),
            ],
        ),
        "dense behind a ReLU": (
            [
                helper.make_node("Conv", ["x", "w", "b"], ["c"]),
                helper.make_node("Relu", ["c"], ["r"]),
                helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2]),
                helper.make_node("Conv", ["p", "v"], ["y"]),
            ],
            [("w", uneven(8, 4, 1, 1)), ("b", uneven(8, 1)[:, 0]), ("v", foreign.weights(6, 8, 1, 1))],
        ),
    }


@pytest.mark.parametrize("name", ["depthwise", "affine", "dense behind a ReLU"])
def test_equalization_changes_no_result_and_makes_int8_more_exact(tmp_path, name):
    nodes, held = patterns()[name]
    source, model = ready(tmp_path, nodes, held, {"x": ["n", 4, 8, 8]}, {"y": ["n", "c", "h", "w"]})
    batches = [foreign.rng.normal(size=(4, 4, 8, 8)).astype(np.float32) for _ in range(3)]
    assert len(equalize(model, [{"x": batch} for batch in batches])) == 1
    made = deploy.write_onnx(model, tmp_path / "made.onnx")
    wanted, found = (deploy.load(path, runtime="onnxruntime")(batches[0]) for path in (source, made))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    exact = deploy.load(source, runtime="onnxruntime")(batches[0])
    errors = []
    for item in ([], ["equalization"]):
        _, output = quantized(source, batches, tmp_path, techniques=item, target="openvino")
        wrong = deploy.load(output, runtime="onnxruntime")(batches[0]) - exact
        errors.append(float(((wrong**2).mean((0, 2, 3)) / (exact**2).mean((0, 2, 3))).sum()))
    assert errors[1] < errors[0] * 0.7


def test_layer_norms_of_many_ops_hand_their_outliers_on(tmp_path):
    """ReduceMean … Mul, Add, then two products that read the same."""
    gain = np.ones(16, np.float32)
    gain[3] = 60
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normed"]),
        helper.make_node("Mul", ["normed", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["read"]),
        helper.make_node("MatMul", ["read", "q"], ["a"]),
        helper.make_node("MatMul", ["read", "k"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weight = foreign.weights(16, 16)
    weight[3] /= 60
    held = [
        ("epsilon", np.array([1e-5], np.float32)), ("gain", gain), ("shift", foreign.weights(16, 1)[:, 0]),
        ("q", weight), ("k", weight[::, ::-1].copy()),
    ]  # fmt: skip
    source, model = ready(tmp_path, nodes, held, {"x": ["n", 5, 16]}, {"y": ["n", 5, 16]})
    batches = [foreign.rng.normal(size=(8, 5, 16)).astype(np.float32) for _ in range(3)]
    assert [(group.axis, len(group.readers)) for group in groups(Net(model))] == [(-1, 2)]
    plain, better = (
        quantized(source, batches, tmp_path, techniques=item)[0]["output_sqnr_db"]
        for item in ([], ["equalization"])
    )
    assert better > plain + 6


LEFT = {
    "the value is a result too": ({"c": ["n", 8, 8, 8]}, {}),
    "another op reads it": ({}, {"reader": helper.make_node("Sigmoid", ["c"], ["z"])}),
    "two layers share the weight": ({}, {"reader": helper.make_node("Conv", ["c", "d"], ["z"], group=8)}),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_scaled_is_left_alone(tmp_path, case):
    shown, more = LEFT[case]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Conv", ["c", "d"], ["y"], group=8),
    ]
    outputs = {"y": ["n", "k", "h", "w"], **shown} | ({"z": ["n", "k", "h", "w"]} if more else {})
    held = [("w", uneven(8, 4, 1, 1)), ("d", foreign.weights(8, 1, 3, 3))]
    _, model = ready(tmp_path, [*nodes, *more.values()], held, {"x": ["n", 4, 8, 8]}, outputs)
    before = model.SerializeToString()
    assert equalize(model, [{"x": np.ones((1, 4, 8, 8), np.float32)}]) == []
    assert model.SerializeToString() == before


# bias correction


def test_biases_take_back_the_shift_of_the_mean(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Conv", ["s", "v", "b"], ["y"]),
    ]
    held = [
        ("w", foreign.weights(6, 6, 1, 1)),
        ("v", foreign.weights(6, 6, 3, 3)),
        ("b", foreign.weights(6, 1)[:, 0]),
    ]
    source, _ = ready(tmp_path, nodes, held, {"x": ["n", 6, 8, 8]}, {"y": ["n", 6, 6, 6]})
    batches = [foreign.rng.normal(size=(8, 6, 8, 8)).astype(np.float32) for _ in range(2)]
    exact = deploy.load(source, runtime="onnxruntime")(batches[0])
    shifts = []
    for item in ([], ["bias_correction"]):
        options = {"observer": "percentile", "observer_options": {"share": 90}, "techniques": item}
        options["target"] = "openvino"  # quantizes no results
        _, output = quantized(source, batches, tmp_path, **options)
        wrong = deploy.load(output, runtime="onnxruntime")(batches[0]) - exact
        shifts.append(float(wrong.mean((0, 2, 3)).abs().max()))
    assert shifts[1] < shifts[0] / 4


def test_a_technique_that_files_have_not(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    for given, message in (
        (["adaround"], "'adaround' is not offered for ONNX files"),
        ("bias_correction", "a list"),
    ):
        with pytest.raises(RecipeError, match=message):
            quantized(source, foreign.images(), tmp_path, techniques=given)
    assert [item.name for item in tmp_path.iterdir()] == ["float.onnx"]


def test_depthwise_convolutions_between_float_activations(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("HardSwish", ["c"], ["h"]),
        helper.make_node("Conv", ["h", "d"], ["e"], group=8, name="between"),
        helper.make_node("HardSwish", ["e"], ["f"]),
        helper.make_node("Conv", ["f", "v"], ["g"], name="second"),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("Conv", ["r", "d2"], ["y"], group=8, name="behind a clamp"),
    ]
    held = [
        ("w", foreign.weights(8, 3, 1, 1)), ("d", foreign.weights(8, 1, 3, 3)), ("v", foreign.weights(8, 8, 1, 1)),
        ("d2", foreign.weights(8, 1, 3, 3)),
    ]  # fmt: skip
    source, _ = ready(tmp_path, nodes, held, {"x": ["n", 3, 12, 12]}, {"y": ["n", 8, 8, 8]})
    report, _ = quantized(source, foreign.images(), tmp_path)
    assert [row["name"] for row in report["left_float"]] == ["between"]
    assert "no faster in int8" in report["left_float"][0]["reason"]
    report, _ = quantized(source, foreign.images(), tmp_path, target="openvino")
    assert report["left_float"] == []
