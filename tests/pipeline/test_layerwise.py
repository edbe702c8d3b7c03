"""Layers that learn from the teacher's own while weights are pruned and shared; what has other layers is refused."""

from __future__ import annotations

import pytest
import torch
from small_net import Net
from small_transformers import bert

import lianzhi as lz
from lianzhi import recipe as recipes
from lianzhi.codebook.masks import weights_of
from lianzhi.errors import DataError, RecipeError

QUICK = {"target": "pytorch", "measure": lz.Measure(batches=(1,), repeats=1, threads=1), "progress": False}
TRAIN = {"batch_size": 32, "epochs": 3, "save_every": None}


@pytest.fixture(scope="module")
def task() -> lz.Task:
    return lz.task("synthetic", samples=192, classes=4, shape=(3, 12, 12))


def test_layers_learn_while_weights_are_pruned_and_shared(task, tmp_path):
    taught = {"method": "layerwise", "options": {"weight": 3.0, "layers": ["stem", "head"]}}
    refine = lz.Distill(**TRAIN, **taught, lr=0.005)
    steps = [
        lz.Train(**TRAIN, lr=0.05),
        lz.Prune(granularity="weight", ratio=0.5, gradual=0.6, every=2, refine=refine),
        lz.ShareWeights(
            bits=3, moving={**TRAIN, "lr": 0.002}, layerwise=3.0, keep="last", **TRAIN
        ),
    ]  # fmt: skip
    result = lz.compress(Net().eval(), task, steps, output=tmp_path / "out", **QUICK)
    tensors = weights_of(result.model).values()
    assert all(len(weight.unique()) <= 8 for weight in tensors)
    kept = sum(int((weight != 0).sum()) for weight in tensors) / sum(weight.numel() for weight in tensors)
    assert kept == pytest.approx(0.5, abs=0.001)
    details = result.report.rows[-1]["details"]
    for history in (details["moving"], details["history"]):
        first, last = (history["epochs"][index]["terms"]["layers"] for index in (0, -1))
        assert 0 < last < first
    saved = recipes.load(tmp_path / "out" / "recipe.yaml").steps
    assert list(saved[1].refine.options["layers"]) == ["stem", "head"]
    assert saved[2].layerwise == 3


def test_a_model_of_other_layers_is_refused_before_anything_is_written(task, tmp_path):
    for steps, error, message in (
        ([lz.Prune(ratio=0.5), lz.ShareWeights(layerwise=1.0)], DataError, r"steps\.1 \(share_weights\).*; use kd"),
        ([lz.Prune(ratio=0.5), lz.Distill(method="layerwise")], DataError, r"steps\.1 \(distill\).*; use kd"),
        ([lz.Distill(method="layerwise", cache=True)], RecipeError, "cache: false"),
        ([lz.Prune(ratio=0.5, iterations=2, refine=lz.Distill(method="layerwise"))], DataError, r"steps\.0 \(prune\).*; use kd"),
        (
            [lz.Train(epochs=1), lz.Prune(ratio=0.5),
             lz.Prune(granularity="weight", ratio=0.5, gradual=0.5, refine=lz.Distill(method="layerwise"))],
            DataError, r"steps\.2 \(prune\).*; use kd",
        ),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            lz.compress(Net().eval(), task, steps, output=tmp_path / "out", **QUICK)
        assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="nothing is trained; give epochs, or moving"):
        lz.ShareWeights(layerwise=1.0, epochs=0)
    with pytest.raises(RecipeError, match="'layerwise' is of the distillation, and 'distill' is false"):
        lz.ShareWeights(layerwise=1.0, distill=False)


def test_layers_that_are_removed_change_the_names_of_those_that_stay(tmp_path):
    pytest.importorskip("transformers")
    words = torch.randint(3, 30, (24, 6))
    data = [({"input_ids": words, "attention_mask": torch.ones_like(words)}, torch.arange(24) % 2)]
    texts = lz.Task(train=data, validation=data, labels=["bad", "good"])
    steps = [lz.Prune(granularity="layers", ratio=0.5), lz.Distill(method="layerwise", epochs=1)]
    with pytest.raises(RecipeError, match=r"steps\.0 \(prune\): it removes layers, and 'layerwise'"):
        lz.compress(bert(4), texts, steps, output=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()
