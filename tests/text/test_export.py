"""ONNX files of classifiers: batch and length are free, and the runtimes say what PyTorch says."""

from __future__ import annotations

import pytest
import torch
from tiny_text import SIZES, tokens
from torch import nn

import lianzhi as lz
from lianzhi import deploy, graph, measure
from lianzhi.errors import GraphError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = lz.model("huggingface", config=SIZES, num_classes=3)
    with torch.no_grad():
        made.classifier.weight *= 50
    return made


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_any_batch_and_length(model, tmp_path, runtime, length):
    pytest.importorskip(runtime)
    file = deploy.export_onnx(model, tokens(1, length), tmp_path / "m.onnx")
    session = deploy.load(file, runtime=runtime, precision="f32")
    assert (list(session.outputs), [port.shape for port in session.inputs]) == (
        ["logits"],
        [(None, None)] * 3,
    )
    assert model.training  # left as it was
    model.eval()
    for place, (batch, tall) in enumerate([(1, 1), (1, 2), (2, 9), (5, 37), (64, 12), (1, 64)]):
        inputs = tokens(batch, tall, seed=place)
        with torch.no_grad():
            expected = model(**inputs).logits
        assert torch.allclose(session(inputs), expected, atol=2e-4), (batch, tall)
    model.train()


def test_padding_changes_nothing(model):
    model.eval()
    short = tokens(1, 6)
    long = {name: nn.functional.pad(value, (0, 9)) for name, value in short.items()}
    with torch.no_grad():
        assert torch.allclose(model(**short).logits, model(**long).logits, atol=1e-5)
    model.train()


def test_dimensions_have_names(model, tmp_path):
    import onnx

    proto = onnx.load(deploy.export_onnx(model, tokens(1, 5), tmp_path / "m.onnx"))
    for item in proto.graph.input:
        assert [dim.dim_param for dim in item.type.tensor_type.shape.dim] == ["batch", "length"]
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_the_capture_returns_logits_and_counts_one_sentence(model):
    captured = graph.capture(model, tokens(1, 6))
    assert captured.output_shape == (2, 3)
    hidden, inner, layers, length, classes = 32, 64, 2, 6, 3
    per_layer = length * (4 * hidden * hidden + 2 * hidden * inner) + 2 * length * length * hidden
    assert measure.macs(model, tokens(1, 6)) == layers * per_layer + hidden * hidden + hidden * classes


def test_a_capture_of_one_length_says_that_it_has_no_other(model, tmp_path):
    captured = graph.capture(model, tokens(1, 6)).module
    with pytest.raises(GraphError, match="captured at one length has no other"):
        deploy.export_onnx(captured, tokens(1, 6), tmp_path / "m.onnx")


def test_what_counts_as_tokens():
    inputs = tokens(1, 4)
    assert graph.are_tokens(inputs)
    assert not graph.are_tokens({"pixels": inputs["input_ids"]})
    assert not graph.are_tokens({**inputs, "more": torch.zeros(1, 4)})
    assert not graph.are_tokens({**inputs, "more": torch.zeros(1, 5, dtype=torch.long)})
