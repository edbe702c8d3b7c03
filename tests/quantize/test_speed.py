"""What is kept in float where int8 is slower, by the times that were measured."""

import pytest
import torch
from nets import Feed, Residual, made

from lianzhi import deploy, measure, quantize
from lianzhi.errors import RecipeError
from lianzhi.quantize import speed
from lianzhi.quantize.onnx_files import speed as onnx_speed


def timed(monkeypatch, net, *shares):
    given = iter(shares)
    monkeypatch.setattr(speed, "slowest_share", lambda *args, **options: next(given))
    monkeypatch.setattr(speed.deploy, "export_onnx", lambda model, inputs, path: path)
    monkeypatch.setattr(speed.QuantizedModel, "export", lambda self, path: path)
    model, inputs = made(net)
    return quantize.quantize_where_faster(model, inputs[:1], iter([inputs])).report


def test_nothing_is_returned_where_int8_is_faster(monkeypatch):
    report = timed(monkeypatch, Residual, 0.6)
    assert report["speed"] == {"float_kept": "nothing", "share_of_float_time": {"nothing": 0.6}, "layers": []}
    assert len(report["layers"]) == 3
    assert not any("float on" in note for note in report["notes"])


def test_the_kind_that_is_slow_stays_float(monkeypatch):
    report = timed(monkeypatch, Residual, 1.3, 1.1, 0.8)
    assert report["speed"]["float_kept"] == "linear layers"
    assert {row["name"] for row in report["layers"]} == {"conv1", "conv2"}
    assert report["speed"]["layers"] == [
        row["name"] for row in report["left_float"] if "conv" not in row["name"]
    ]
    assert any("linear layers stay float, and the rest takes 0.80" in note for note in report["notes"])


@pytest.mark.parametrize(("net", "shares"), [(Residual, (1.3, 1.2, 1.1)), (Feed, (1.3,))])
def test_all_of_it_stays_float_where_nothing_is_faster(monkeypatch, net, shares):
    report = timed(monkeypatch, net, *shares)
    assert (report["speed"]["float_kept"], report["speed"]["layers"]) == ("everything", ["*"])
    assert report["layers"] == []
    assert any("it stays float" in note for note in report["notes"])


def test_real_times():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()
    inputs = torch.randn(16, 8)
    done = quantize.quantize_where_faster(model, inputs[:1], [inputs], threads=1, rounds=1)
    assert all(share > 0 for share in done.report["speed"]["share_of_float_time"].values())


def test_the_share_is_over_the_fastest_float_that_is_as_accurate(monkeypatch, tmp_path):
    """Half precision is made up: as fast as it likes, it counts only where its results are as near as int8's."""
    model, inputs = made(Residual)
    floats = deploy.export_onnx(model, inputs[:1], tmp_path / "float.onnx")
    int8 = quantize.quantize(model, inputs[:1], [inputs]).export(tmp_path / "int8.onnx")
    runtime, load = deploy.registry.get("onnxruntime").build, deploy.load
    monkeypatch.setattr(type(runtime), "precisions", lambda self, path: ["f32", "bf16"])
    shares = {"f32": 0.7, "bf16": 1.4}
    wrong, ran = {}, []

    def loaded(path, *, runtime, precision="f32", threads=None):
        session = load(path, runtime=runtime, threads=threads)
        name, run = precision if path == floats else "int8", session.run

        def spoilt(feeds):
            ran.append(name)
            return [value * wrong.get(name, 1.0) for value in run(feeds)]

        session.run = spoilt
        return session

    def in_turns(original, trial, rounds):
        original()
        return measure.Turns(shares[ran[-1]], 1.0, shares[ran[-1]])

    monkeypatch.setattr(speed.deploy, "load", loaded)
    monkeypatch.setattr(onnx_speed.measure, "both_in_turns", in_turns)

    def share(batches):
        return speed.slowest_share(floats, int8, batches, inputs[:4], target="onnxruntime")

    assert share([(inputs, None)]) == share(None) == 1.4
    wrong["bf16"] = 1.5
    assert share([(inputs, None)]) == share(None) == 0.7


def test_a_target_that_is_not_timed():
    model, inputs = made(Residual)
    with pytest.raises(RecipeError, match="'tensorrt' cannot be timed here"):
        quantize.quantize_where_faster(model, inputs[:1], [inputs], target="tensorrt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "float16", "activations": "float"}, "activations: 'float' has no layers"),
        ({"rounds": 0}, "rounds: 0 must be 1 or more"),
    ],
)
def test_what_there_is_nothing_to_time_of(options, message):
    model, inputs = made(Residual)
    with pytest.raises(RecipeError, match=message):
        quantize.quantize_where_faster(model, inputs[:1], [inputs], **options)
