"""Accuracy control of files: layers go back to float until what is lost stays within the bar."""

import json

import foreign
import numpy as np
import pytest
import torch
from foreign import quantized, ready
from onnx import helper

from lianzhi import deploy, files
from lianzhi.errors import DataError, RecipeError
from lianzhi.quantize import report_table
from lianzhi.quantize.onnx_files import speed
from lianzhi.quantize.onnx_files.control import control


def fragile(path):
    """A classifier of which the first layer spoils what it reads in int8: a signal beside a huge constant channel."""
    first = np.zeros((8, 3, 1, 1), np.float32)
    first[:, :2] = foreign.weights(8, 2, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="spoilt"),
        helper.make_node("Tanh", ["c1"], ["t1"]),
        helper.make_node("Conv", ["t1", "w2"], ["c2"], name="sound"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["y"], transB=1, name="last"),
    ]
    held = [("w1", first), ("w2", foreign.weights(8, 8, 1, 1)), ("w3", foreign.weights(10, 8))]
    return foreign.save(
        path, nodes, {"x": ["n", 3, 4, 4]}, {"y": ["n", 10]}, initializers=held, opset=14, ir=8
    )


def unlike(count=8, samples=64):
    batches = [foreign.rng.normal(size=(samples, 3, 4, 4)).astype(np.float32) for _ in range(count)]
    for batch in batches:
        batch[:, 2] *= 300
    return batches


def agreement(source, output, batches):
    one, other = (deploy.load(path, runtime="onnxruntime") for path in (source, output))
    return np.mean(
        [float((one(batch).argmax(-1) == other(batch).argmax(-1)).float().mean()) for batch in batches]
    )


@pytest.mark.parametrize("how", ["agreement", "evaluate"])
def test_the_worst_layer_returns_to_float(tmp_path, how):
    source, batches = fragile(tmp_path / "float.onnx"), unlike()
    labelled, fresh = unlike(4), unlike(4)
    exact = deploy.load(source, runtime="onnxruntime")
    labels = [exact(batch).argmax(-1) for batch in labelled]
    called = []

    def evaluate(session):
        called.append(session)
        return float(
            np.mean(
                [
                    float((session(x).argmax(-1) == y).float().mean())
                    for x, y in zip(labelled, labels, strict=True)
                ]
            )
        )

    options = {"max_drop": 0.05, "observer": "minmax"} | ({"evaluate": evaluate} if how == "evaluate" else {})
    report, output = quantized(source, batches, tmp_path, **options)
    record = report["control"]
    assert record["calibrated"] < 0.9
    assert record["met"]
    assert record["returned"][0] == record["steps"][0]["layer"] == "spoilt"
    assert record["accuracy"]["quantized"] >= record["accuracy"]["float"] - 0.05
    assert {"name": "spoilt", "reason": "accuracy control"} in report["left_float"]
    assert deploy.is_quantized(output)
    assert agreement(source, output, fresh) > 0.9
    assert report["calibration"]["batches"] == (8 if how == "evaluate" else 6)
    assert bool(called) == (how == "evaluate")
    assert "returned to float" in report_table(report)
    json.dumps(files.finite(report))


def test_one_lucky_step_does_not_end_the_search():
    """The metric jumps at the first step and falls at the second, which still takes error away."""

    class Made:
        def __init__(self, wrong):
            self.wrong = wrong

        def run(self, batch):
            return [batch["x"] + self.wrong]

    errors = {(): 3.0, ("a",): 2.0, ("b",): 2.5, ("a", "b"): 1.0, ("c",): 2.9, ("a", "b", "c"): 0.1}
    values = {3.0: 0.5, 2.0: 0.9, 1.0: 0.8, 0.1: 1.0, 0.0: 1.0}
    record = control(
        lambda returned: Made(errors[tuple(returned)]),
        ["c", "a", "b"],
        Made(0.0),
        [{"x": np.ones((2, 3), np.float32)}],
        lambda session: values[session.wrong],
        0.01,
    )
    assert [step["value"] for step in record["steps"]] == [0.9, 0.8, 1.0]
    assert record["returned"] == ["a", "b", "c"]
    assert record["met"]


def test_nothing_returns_where_the_bar_holds(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    report, _ = quantized(source, foreign.images(8), tmp_path, max_drop=0.5)
    assert report["control"]["returned"] == report["control"]["steps"] == []
    assert report["control"]["met"]
    assert "agreement" in report["control"]["metric"]
    report, _ = quantized(source, foreign.images(), tmp_path, evaluate=lambda session: 0.25)
    assert report["control"]["accuracy"] == {"float": 0.25, "quantized": 0.25}


def test_a_bar_that_no_quantized_file_meets_keeps_float(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    report, output = quantized(
        source,
        foreign.images(),
        tmp_path,
        max_drop=0,
        evaluate=lambda session: float(_is_float(session, source)),
    )
    assert (report["quantized"], report["worth_it"]) == ("none", False)
    assert "met only with every layer in float" in report["reason"]
    assert {row["reason"] for row in report["left_float"]} == {"accuracy control"}
    assert output.read_bytes() == source.read_bytes()
    assert report_table(report)


def _is_float(session, source):
    batch = foreign.images(1)[0]
    return torch.equal(session(batch), deploy.load(source, runtime="onnxruntime")(batch))


def test_what_returned_may_be_too_much_to_be_faster(tmp_path, monkeypatch):
    left = iter([0.8, 1.2])

    def timed(source, simplified, quantized, batches, *, target, threads):
        return speed.Timing(target, "f32", next(left), 1.0, 1.0, 1, {})

    monkeypatch.setattr(speed, "compare_speed", timed)
    source = fragile(tmp_path / "float.onnx")
    report, output = quantized(source, unlike(), tmp_path, max_drop=0.05, observer="minmax", measure=True)
    assert (report["quantized"], report["worth_it"]) == ("none", False)
    assert "1.20x" in report["reason"]
    assert not deploy.is_quantized(output)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_drop": -0.1}, RecipeError, "must be 0 or more"),
        ({"max_drop": float("nan")}, RecipeError, "must be 0 or more"),
        ({"max_drop": 0.1, "evaluate": lambda session: float("nan")}, DataError, "evaluate gave nan"),
        ({"max_drop": 0.1, "calibration": [foreign.images(1)[0][:1]]}, DataError, "there is one sample"),
    ],
)
def test_wrong_bars_write_nothing(tmp_path, options, error, message):
    source = foreign.residual(tmp_path / "float.onnx")
    batches = options.pop("calibration", foreign.images())
    with pytest.raises(error, match=message):
        quantized(source, batches, tmp_path, **options)
    assert [item.name for item in tmp_path.iterdir()] == ["float.onnx"]


def test_one_batch_is_cut_where_the_file_lets_it(tmp_path):
    source = foreign.residual(tmp_path / "float.onnx")
    report, _ = quantized(source, foreign.images(1), tmp_path, max_drop=1)
    assert report["calibration"] == {"batches": 3, "samples": 6}


def test_numbers_that_are_no_classes_are_compared_by_size(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    source, _ = ready(
        tmp_path,
        nodes,
        [("w", foreign.weights(4, 3, 1, 1))],
        {"x": ["n", 3, 12, 12]},
        {"y": ["n", 4, 12, 12]},
    )
    report, _ = quantized(source, foreign.images(8), tmp_path, max_drop=1)
    assert "relative error" in report["control"]["metric"]
    assert 0.9 < report["control"]["accuracy"]["quantized"] < 1
