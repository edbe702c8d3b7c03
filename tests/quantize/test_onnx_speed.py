"""Files made elsewhere: what is not faster in integers on this machine stays float."""

import foreign
import onnx
import pytest
import torch
from foreign import quantized, run

from lianzhi import deploy
from lianzhi.quantize.onnx_files import speed


def timings(monkeypatch, *ratios):
    left = iter(ratios)

    def timed(source, simplified, quantized, batches, *, target, threads):
        return speed.Timing(target, "f32", next(left), 1.0, 1.0, 1, {})

    monkeypatch.setattr(speed, "compare_speed", timed)


@pytest.mark.parametrize(
    ("ratios", "kept", "layers"),
    [
        ((0.9,), "all layers", ["Conv", "Conv", "Gemm"]),
        ((1.1, 0.9), "the convolutions", ["Conv", "Conv"]),
        ((1.1, 1.1, 1.0), "the matrix products", ["Gemm"]),
        ((1.1, 1.2, 1.3), "none", []),
    ],
)
def test_what_is_slower_stays_float(tmp_path, monkeypatch, ratios, kept, layers):
    timings(monkeypatch, *ratios)
    source, batches = foreign.residual(tmp_path / "float.onnx"), foreign.images()
    report, output = quantized(source, batches, tmp_path, measure=True)
    assert report["quantized"] == kept
    assert report["worth_it"] is (kept != "none")
    assert [row["type"] for row in report["layers"]] == layers
    assert [item["ratio"] for item in report["attempts"]] == list(ratios)
    assert len(report["left_float"]) == 3 - len(layers)
    assert deploy.is_quantized(output) is (kept != "none")
    if kept == "none":
        assert "slower than float on onnxruntime" in report["reason"]
        torch.testing.assert_close(run(output, batches[0]), run(source, batches[0]))


def test_a_simplified_float_file_that_is_the_fastest_is_written(tmp_path, monkeypatch):
    def timed(source, simplified, quantized, batches, *, target, threads):
        return speed.Timing(target, speed.SIMPLIFIED, 1.5, 1.0, 1.5, 1, {})

    monkeypatch.setattr(speed, "compare_speed", timed)
    source, batches = foreign.residual(tmp_path / "float.onnx"), foreign.images()
    report, output = quantized(source, batches, tmp_path, measure=True)
    assert (report["quantized"], report["worth_it"]) == ("none", False)
    assert "simplified" in report["notes"][0]
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(output).graph.node}
    torch.testing.assert_close(run(output, batches[0]), run(source, batches[0]), atol=1e-5, rtol=1e-4)


def test_float_and_int8_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 1)
    report, _ = quantized(
        foreign.residual(tmp_path / "f.onnx"), foreign.images(), tmp_path, measure=True, threads=1
    )
    first = report["attempts"][0]
    assert first["shapes"] == {"x": [1, 3, 12, 12]}
    assert first["threads"] == 1
    assert first["ratio"] == max(first["ratios"].values()) > 0
    assert {"f32", speed.SIMPLIFIED} <= set(first["ratios"])
    assert report["worth_it"] is (report["quantized"] != "none")
