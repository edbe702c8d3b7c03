"""Weights that leave nothing of a loss are refused when the options are made, and not by the first step."""

from __future__ import annotations

import pytest

from lianzhi.distill.methods import registry
from lianzhi.errors import RecipeError

NONE = {"embedding": 0, "hidden": 0, "attention": 0}


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rkd", {"weight": 0, "hard": 0}, "weight, hard and soft are all 0"),
        ("fitnet", {"hint_first": True, "hard": 0}, "stage 'fitnet': hard and soft are all 0"),
        ("fitnet", {"hint_first": True, "weight": 0}, "stage 'hint': weight is 0"),
        ("rkd", {"distance": 0, "angle": 0}, "distance and angle are all 0"),
        ("dkd", {"weight": 0, "hard": 0}, "weight and hard are all 0"),
        ("dkd", {"alpha": 0, "beta": 0, "hard": 0}, "alpha, beta and hard are all 0"),
        ("dist", {"beta": 0, "gamma": 0, "hard": 0}, "beta, gamma and hard are all 0"),
        ("logit_loss", {"weight": 0, "hard": 0}, "weight and hard are all 0"),
        ("mobilebert", {"phase": {"label_smoothing": 0.1}}, "no labels to smooth"),
        ("tinybert", NONE, "embedding, hidden and attention are all 0"),
        ("tinybert", {**NONE, "joint": True, "prediction": 0}, "attention and prediction are all 0"),
        ("tinybert", {**NONE, "joint": True, "general": {"data": "texts"}}, "hidden and attention are all 0"),
        ("distilbert", {"soft": 0, "hard": 0, "cosine": 0}, "soft, hard and cosine are all 0"),
        ("minilm", {"query": 0, "key": 0, "value": 0}, "query, key and value are all 0"),
        ("minilm", {"version": 1, "attention": 0, "value": 0}, "attention and value are all 0"),
        (
            "mobilebert",
            {"normalized": 0, "mean": 0, "variance": 0, "attention": 0},
            "variance and attention are all 0",
        ),
    ],
)
def test_a_loss_of_nothing_is_refused(method, options, message):
    with pytest.raises(RecipeError, match=message):
        registry.get(method).config(**options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("fitnet", {"hint_first": True, "hard": 0, "soft": 1}),
        ("tinybert", {**NONE, "joint": True}),
        ("minilm", {"version": 1, "attention": 0}),
    ],
)
def test_one_term_is_enough(method, options):
    assert registry.get(method).config(**options)
