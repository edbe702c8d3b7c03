"""Smoothing of labels that weigh nothing is refused, by methods that can do without labels."""

from __future__ import annotations

import pytest
import torch
from lessons import setting, taught
from tiny_cnn import TinyCNN

import lianzhi as lz
from lianzhi.distill.methods import Setting, registry
from lianzhi.errors import RecipeError

CNN = {
    "kd": {"alpha": 1.0},
    "kd by weight": {"weight": 2.0},
    "dkd": {"hard": 0.0},
    "dist": {"hard": 0.0},
    "logit_loss": {"hard": 0.0},
    "rkd": {"hard": 0.0},
    "fitnet": {"hard": 0.0},
}
TEXT = {
    "pkd": {"alpha": 1.0},
    "minilm": {"alpha": 1.0},
    "distilbert": {"hard": 0.0},
    "theseus_plus": {"alpha": 1.0},
    "mobilebert": {"alpha": 1.0},
}


@pytest.mark.parametrize("case", list(CNN))
def test_of_a_cnn(case):
    images = [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))]
    task = lz.Task(train=images, validation=images, num_classes=4)
    given = Setting(TinyCNN(6, 10), TinyCNN(4, 6), task, training=lz.Train(label_smoothing=0.1))
    entry = registry.get(case.partition(" ")[0])
    if case == "kd by weight":  # beside a weight the labels count 1
        assert entry.build(given, entry.config(**CNN[case])).stages
        return
    with pytest.raises(RecipeError, match=r"label_smoothing: with .* no labels are read"):
        entry.build(given, entry.config(**CNN[case]))


@pytest.mark.parametrize("method", list(TEXT))
def test_of_a_text_model(method):
    given = setting()
    given.training = lz.Train(label_smoothing=0.1)
    with pytest.raises(RecipeError, match=r"label_smoothing: with .* no labels are read"):
        taught(given, method, **TEXT[method])


def test_a_phase_of_mobilebert_keeps_its_last_epoch():
    with pytest.raises(RecipeError, match="leave 'keep' out"):
        registry.get("mobilebert").options(phase={"keep": "best"})
    assert registry.get("mobilebert").options(phase={"keep": "last", "epochs": 1}).phase["epochs"] == 1
