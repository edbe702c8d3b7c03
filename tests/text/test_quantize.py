"""Int8 classifiers of text: batch and length are free, in the file, the module and the artifact."""

from __future__ import annotations

import pytest
import torch
from tiny_text import SIZES, tokens

import lianzhi as lz
from lianzhi import deploy
from lianzhi.errors import DataError
from lianzhi.quantize import lint, quantize

SHAPES = [(1, 1), (1, 2), (2, 9), (5, 37), (16, 12), (1, 64)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = lz.model("huggingface", config=SIZES, num_classes=3).eval()
    with torch.no_grad():
        made.classifier.weight *= 50
    return made


@pytest.fixture(scope="module")
def quantized(model):
    batches = [tokens(4, length, seed=length) for length in (5, 12, 30)]
    return quantize(model, tokens(1, 9), batches, target="onnxruntime", reduce_range=True)


def test_every_linear_layer_and_table_is_quantized(model, quantized):
    kinds = (torch.nn.Linear, torch.nn.Embedding)
    named = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    assert {row["name"] for row in quantized.report["layers"]} == set(named)
    assert quantized.report["output_sqnr_db"] > 20


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_any_batch_and_length(quantized, tmp_path, runtime):
    pytest.importorskip(runtime)
    file = quantized.export(tmp_path / "m.onnx")
    assert lint(file, "onnxruntime") == []
    session = deploy.load(file, runtime=runtime)
    assert session.precision == "int8"
    assert [port.shape for port in session.inputs] == [(None, None)] * 3
    for place, (batch, length) in enumerate(SHAPES):
        inputs = tokens(batch, length, seed=place)
        with torch.no_grad():
            expected = quantized.model(**inputs)
        expected = expected["logits"] if isinstance(expected, dict) else expected.logits
        scale = float(expected.abs().max())
        assert float((session(inputs) - expected).abs().max()) < 0.05 * scale, (batch, length)


def test_an_artifact_keeps_them_free(quantized, tmp_path):
    lz.save(quantized.model, tmp_path / "a", example_inputs=tokens(1, 9))
    loaded = lz.load(tmp_path / "a")
    for batch, length in SHAPES:
        inputs = tokens(batch, length)
        with torch.no_grad():
            assert torch.equal(loaded(**inputs)["logits"], quantized.model(**inputs).logits)


def test_a_length_that_differs_between_inputs_is_refused(model):
    bad = tokens(2, 6)
    bad["attention_mask"] = bad["attention_mask"][:, :5]
    with pytest.raises(DataError, match=r"calibration batch 0: .*attention_mask.*5.*6"):
        quantize(model, tokens(1, 9), [bad])
