"""Methods on features where the features are of tokens: padding has no part, and what needs maps is refused at once."""

from __future__ import annotations

import pytest
import torch
from lessons import STILL, setting, task, taught, texts
from small_transformers import bert
from torch.nn import functional

from lianzhi.errors import RecipeError
from lianzhi.tasks import Batch

LAYERS = {"student_layers": ["bert.encoder.layer.1"], "teacher_layers": ["bert.encoder.layer.3"]}
METHODS = ("fitnet", "rkd", "pkt", "similarity_preserving")


def batch_of(rows: slice, *, padded: int = 0) -> Batch:
    inputs, labels = texts(16)
    inputs = {name: functional.pad(value[rows], (0, padded)) for name, value in inputs.items()}
    return Batch(inputs, labels[rows], torch.arange(16)[rows], len(labels[rows]))


def step_of(name, **changes):
    given = setting(**changes)
    stage = taught(given, name, **LAYERS).stages[-1]
    return (stage.model or given.student), stage.step


@pytest.mark.parametrize("narrow", [{}, {"hidden_size": 16}])
@pytest.mark.parametrize("name", METHODS)
def test_more_padding_changes_nothing(name, narrow):
    model, step = step_of(name, **narrow)
    short, long = (step(model, batch_of(slice(None), padded=count)) for count in (0, 6))
    assert torch.allclose(short["loss"], long["loss"], rtol=1e-4)
    assert torch.allclose(short["terms"][name], long["terms"][name], rtol=1e-4)


def test_fitnet_in_parts_has_the_gradient_of_the_whole():
    def gradient(parts):
        model, step = step_of("fitnet")
        for part in parts:
            batch = batch_of(part)
            (step(model, batch)["loss"] * len(batch.labels) / 16).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient([slice(0, 16)])
    halves = gradient([slice(0, 8), slice(8, 16)])
    assert (whole - halves).norm() <= 1e-5 * whole.norm()


def test_the_hint_is_the_mean_over_texts_of_the_mean_over_their_tokens():
    given = setting()
    stage = taught(given, "fitnet", **LAYERS, hard=0.0, weight=1.0).stages[-1]
    batch = batch_of(slice(None))
    found = stage.step(stage.model, batch)["loss"].item()
    with torch.no_grad():
        states = [
            model.bert(**batch.inputs, output_hidden_states=True).hidden_states[-1]
            for model in (given.student, given.teacher)
        ]
    rows = [
        (one[: int(mask.sum())] - other[: int(mask.sum())]).square().mean().item()
        for one, other, mask in zip(*states, batch.inputs["attention_mask"], strict=True)
    ]
    assert found == pytest.approx(sum(rows) / len(rows), rel=1e-5)


@pytest.mark.parametrize("name", ["crd", "attention_transfer", "nst", "review_kd"])
def test_what_takes_no_tokens_is_refused_before_training(name):
    given = setting(bert(4, seed=1, **STILL), bert(2, seed=2, **STILL), task())
    with pytest.raises(RecipeError, match=rf"{name} .*'bert\.encoder\.layer\.1' gives \[\d+, 9, 32\]"):
        taught(given, name, **LAYERS)
