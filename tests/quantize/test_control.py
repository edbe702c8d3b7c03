"""Accuracy control: what is returned to float, in which order, and what the report says of it."""

import json

import pytest
import torch
from nets import Feed, Inception, Residual, made

from lianzhi import deploy, quantize
from lianzhi.errors import RecipeError
from lianzhi.quantize.affine import FAKE_TENSOR


def spoilt():
    """One layer has a large weight on an input that is always 0: the small ones beside it are rounded away."""
    model, inputs = made(Residual)
    with torch.no_grad():
        model.bn1.weight[0], model.bn1.bias[0] = 0.0, -1.0
        model.conv2.weight[:, 0] = 200 * model.conv2.weight.abs().max()
    return model, inputs


def closeness(inputs, model):
    with torch.no_grad():
        exact = model(inputs)
        spread = exact.square().mean()

    def evaluate(module):
        with torch.no_grad():
            return 1 - float((module(inputs) - exact).square().mean() / spread)

    return evaluate


def test_the_spoilt_layer_is_returned_and_no_other(tmp_path):
    model, inputs = spoilt()
    evaluate = closeness(inputs, model)
    plain = quantize.quantize(model, inputs[:1], [inputs], evaluate=evaluate)
    drop = 1 - plain.report["accuracy"]["quantized"]
    done = quantize.quantize(model, inputs[:1], [inputs], evaluate=evaluate, max_drop=drop / 2)
    report = json.loads(json.dumps(done.report))
    assert report["control"]["returned"] == ["conv2"]
    assert report["control"]["met"]
    assert report["control"]["calibrated"] == plain.report["accuracy"]["quantized"]
    assert [step["kept"] for step in report["control"]["steps"]] == [True]
    assert 1 - report["accuracy"]["quantized"] <= drop / 2
    assert {row["name"] for row in report["layers"]} == {"conv1", "linear"}
    assert {"name": "conv2", "reason": "accuracy control"} in report["left_float"]
    assert any("1 layers returned to float" in note for note in report["notes"])
    path = done.export(tmp_path / "model.onnx")
    with torch.no_grad():
        expected = done.model(inputs)
    assert quantize.lint(path, "onnxruntime") == []
    for runtime in (
        "onnxruntime",
        "openvino",
    ):  # of which the first rounds float weights where nothing stops it
        found = deploy.load(path, runtime=runtime, threads=1)(inputs)
        assert (found - expected).square().mean() < 1e-4 * expected.square().mean()


@pytest.mark.parametrize("net", [Residual, Inception, Feed], ids=lambda net: net.__name__)
def test_a_returned_layer_is_one_that_was_ignored(net):
    """The module is the one that `ignore` gives, up to the ranges that are seen without the layer's error."""
    model, inputs = made(net)
    full = quantize.quantize(model, inputs[:1], [inputs])
    name = full.report["layers"][1]["name"]
    values = iter([1.0, 0.5, 1.0])
    done = quantize.quantize(model, inputs[:1], [inputs], evaluate=lambda module: next(values), max_drop=0.1)
    first = done.report["control"]["returned"][0]
    wanted = quantize.quantize(model, inputs[:1], [inputs], ignore=[first])
    with torch.no_grad():
        torch.testing.assert_close(done.model(inputs), wanted.model(inputs), rtol=1e-4, atol=1e-4)
    count = [sum(node.target is FAKE_TENSOR for node in item.model.graph.nodes) for item in (done, wanted)]
    assert count[0] == count[1]
    assert {row["name"] for row in done.report["values"]} == {row["name"] for row in wanted.report["values"]}
    assert name


def test_rounded_weights_are_put_back():
    model, inputs = made(Residual)
    values = iter([1.0, 0.0, 0.1, 0.2, 0.3])
    done = quantize.quantize(
        model, inputs[:1], [inputs], weights="int4", techniques=["gptq", "bias_correction"],
        evaluate=lambda module: next(values), max_drop=0.1,
    )  # fmt: skip
    assert len(done.report["control"]["returned"]) == 3
    assert not done.report["control"]["met"]
    assert any("is not met with 3 layers in float" in note for note in done.report["notes"])
    with torch.no_grad():
        torch.testing.assert_close(done.model(inputs), model(inputs), rtol=1e-4, atol=1e-4)
    assert not [name for name, _ in done.model.named_buffers() if name.endswith("scale")]


def test_a_step_that_makes_it_worse_is_undone():
    model, inputs = made(Residual)
    values = iter([1.0, 0.5, 0.4, 0.6, 0.95])
    done = quantize.quantize(model, inputs[:1], [inputs], evaluate=lambda module: next(values), max_drop=0.1)
    steps = done.report["control"]["steps"]
    assert [step["kept"] for step in steps] == [False, True, True]
    assert done.report["control"]["returned"] == [step["layer"] for step in steps[1:]]
    assert [step["damage"] for step in steps] == sorted((step["damage"] for step in steps), reverse=True)
    assert done.report["accuracy"] == {"float": 1.0, "quantized": 0.95}
    assert steps[0]["layer"] in {row["name"] for row in done.report["layers"]}


def test_nothing_to_do():
    model, inputs = made(Residual)
    done = quantize.quantize(model, inputs[:1], [inputs], evaluate=closeness(inputs, model), max_drop=0.5)
    assert done.report["control"]["steps"] == []
    assert any("nothing to do" in note for note in done.report["notes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 0.01}, "give evaluate="),
        ({"max_drop": -0.1, "evaluate": len}, "must be 0 or more"),
        ({"max_drop": float("nan"), "evaluate": len}, "must be 0 or more"),
    ],
)
def test_a_drop_of_nothing(options, message):
    model, inputs = made(Residual)
    with pytest.raises(RecipeError, match=message):
        quantize.quantize(model, inputs[:1], [inputs], **options)
