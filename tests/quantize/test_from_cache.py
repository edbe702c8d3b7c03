"""Calibration caches of TensorRT as tables: the same file again without data, whatever the exporter calls its values."""

from __future__ import annotations

import pytest
import torch
from nets import Inception, Residual, Wide, made

from lianzhi.errors import DataError, RecipeError
from lianzhi.quantize import (
    check_cache,
    file_amax,
    is_tensorrt_cache,
    quantize,
    read_tensorrt_cache,
    table_from_cache,
    write_tensorrt_cache,
)


def online(net, folder):
    """A model, its inputs, the file that was made with data, and the cache that a run leaves beside it."""
    model, inputs = made(net)
    path = quantize(model, inputs[:1], [inputs], target="tensorrt").export(folder / "online.onnx")
    return model, inputs, path, write_tensorrt_cache(folder / "calibration.cache", file_amax(path))


def test_offline_gives_the_same_file(tmp_path):
    model, inputs, path, cache = online(Wide, tmp_path)
    table = table_from_cache(cache, model, inputs[:1])
    again = quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table)
    other = again.export(tmp_path / "offline.onnx")
    before, after = file_amax(path), file_amax(other)
    assert before == pytest.approx(after, rel=1e-6)
    assert again.report["calibration"]["table"] == "ranges by tensorrt cache"
    assert again.report["observer"] == {"name": "tensorrt cache"}


def test_values_of_one_scale_take_the_largest_range_and_others_are_passed_over(tmp_path):
    model, inputs, _, cache = online(Inception, tmp_path)
    amax = read_tensorrt_cache(cache)
    shared = [name for name in amax if list(amax.values()).count(amax[name]) > 1]
    assert len(shared) > 1
    write_tensorrt_cache(cache, {**amax, shared[0]: 99.0, "elsewhere": 1.0})
    table = table_from_cache(cache, model, inputs[:1])
    again = quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table)
    found = file_amax(again.export(tmp_path / "m.onnx"))
    assert {name for name, value in found.items() if value == pytest.approx(99.0)} >= set(shared)


def test_a_cache_of_another_model_is_refused(tmp_path):
    model, inputs = made(Wide)
    cache = write_tensorrt_cache(tmp_path / "calibration.cache", {"input": 1.0, "conv2": 2.0})
    with pytest.raises(
        DataError,
        match=r"calibration\.cache: the calibration cache has no range for 'relu', 'relu_1'.* of the 6 values.*own model",
    ):
        table_from_cache(cache, model, inputs[:1])


def test_what_is_not_quantized_needs_no_range(tmp_path):
    model, inputs, _, cache = online(Wide, tmp_path)
    form = quantize(model, inputs[:1], [inputs], target="tensorrt", ignore=["up"])
    left = file_amax(form.export(tmp_path / "left.onnx"))
    assert 1 < len(left) < len(read_tensorrt_cache(cache))
    write_tensorrt_cache(cache, left)
    table = table_from_cache(cache, model, inputs[:1], ignore=["up"])
    options = {"ignore": ["up"], "techniques": ["bias_correction"]}  # which reads any data
    again = quantize(model, inputs[:1], [inputs], target="tensorrt", calibration_table=table, **options)
    assert file_amax(again.export(tmp_path / "again.onnx")) == pytest.approx(left, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "openvino"}, RecipeError, "symmetric ranges, for target 'tensorrt', and not 'openvino'"),
        (
            {"techniques": ["equalization"]},
            RecipeError,
            "'equalization' changes values before they are observed",
        ),
        ({}, DataError, "line 2: 'x' is not 'name: hex'"),
    ],
)
def test_what_does_not_go_with_a_cache(tmp_path, options, error, message):
    path = tmp_path / "c.cache"
    path.write_text("TRT-100300-EntropyCalibration2\nx\n")
    assert is_tensorrt_cache(path)
    with pytest.raises(error, match=message):
        check_cache(path, **{"target": "tensorrt", **options})


def test_what_is_no_cache(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    assert not is_tensorrt_cache(tmp_path / "t.json")
    assert not is_tensorrt_cache(tmp_path / "none")


def test_a_silent_value(tmp_path):
    """A value that was zero on all data has amax 0 in TensorRT's own caches."""
    model, inputs, _, cache = online(Residual, tmp_path)
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join([*lines[:-1], lines[-1].rpartition(":")[0] + ": 0"]) + "\n")
    table = table_from_cache(cache, model, inputs[:1])
    again = quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table)
    with torch.no_grad():
        assert again.model(inputs).isfinite().all()
