"""Every operation of the table, and models of the zoo: what OneFlow computes of the source is what PyTorch does."""

from __future__ import annotations

import pytest
import torch
from oneflow_as_torch import written
from oneflow_cases import CASES, filled
from test_oneflow_zoo import CNNS, SMALL, TEXT, tokens
from under_oneflow import assert_agree, read, save

import lianzhi as lz
from lianzhi import models
from lianzhi.deploy import oneflow as checkpoints

pytestmark = pytest.mark.oneflow
ONE_PART_TWICE = (
    "held"  # a parameter under two names in one part, which nn.Graph itself takes for one without value
)
DEEP = {"resnet44", "resnet56", "resnet101", "resnet110", "resnet152"}  # more of the same


def compare(oneflow, folder, models_of):
    """Write each model's folder, run all in one process of OneFlow, and compare."""
    expected = {}
    for name, (model, inputs) in models_of.items():
        source, place = written(model, inputs), folder / str(len(expected))
        checkpoints.write(source.tensors, place / "weights")
        (place / "model.py").write_text(source.text, encoding="utf-8")
        save(place / "inputs.npz", inputs)
        with torch.no_grad():
            expected[name] = (place, model(**inputs) if isinstance(inputs, dict) else model(*inputs))
    oneflow.run("outputs", *[place for place, _ in expected.values()])
    for name, (place, outputs) in expected.items():
        try:
            assert_agree(read(place / "outputs.npz"), outputs)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    oneflow.run("graphs", *[place for name, (place, _) in expected.items() if name != ONE_PART_TWICE])


def test_operations(oneflow, tmp_path):
    compare(oneflow, tmp_path, {name: make() for name, make in CASES.items()})


def test_images(oneflow, tmp_path):
    found = {}
    for name in sorted(set(CNNS) - DEEP):
        model = filled(models.model(name, num_classes=10, **SMALL.get(name, {})))
        found[name] = (model, (torch.randn(3, *models.input_shape(model)),))
    compare(oneflow, tmp_path, found)


def test_texts(oneflow, tmp_path):
    found = {}
    for kind, config in TEXT.items():
        inputs = tokens(3, 9, segments=kind not in ("distilbert", "roberta"))
        found[kind] = (filled(lz.model("huggingface", config=config)), inputs)
    for pairs in (False, True):
        model = lz.model("bilstm", vocabulary=30, width=8, hidden=6, linear=5, pairs=pairs)
        found[f"bilstm {pairs}"] = (filled(model), tokens(3, 9, segments=pairs))
    compare(oneflow, tmp_path, found)
