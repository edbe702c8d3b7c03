"""Pruning of weights while the model trains, as a step of a recipe: what holds, and how many stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi.codebook.gradual import Gradual
from lianzhi.codebook.masks import weights_of
from lianzhi.errors import GraphError, RecipeError

QUICK = lz.Measure(batches=(1,), repeats=1, threads=1)
FAST = {"batch_size": 32, "epochs": 1, "save_every": None}
HINTS = {"options": {"hint_first": True, "student_layers": ["2"], "teacher_layers": ["2"]}}


@pytest.fixture(scope="module")
def task() -> lz.Task:
    return lz.task("synthetic", samples=256, classes=3, shape=(3, 8, 8))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
    )


def compress(task: lz.Task, steps: list, out: Path, *, model: nn.Module | None = None):
    model = small().eval() if model is None else model
    return lz.compress(model, task, steps, target="pytorch", output=out, measure=QUICK, progress=False)


def prune(**options: object) -> lz.Prune:
    return lz.Prune(granularity="weight", scope="layer", **options)


def zeros(model: nn.Module) -> dict[str, float]:
    return {name: float((weight == 0).float().mean()) for name, weight in weights_of(model).items()}


def test_without_feedback(task, tmp_path):
    found = []
    for feedback in (True, False):
        refine = lz.Train(**{**FAST, "epochs": 3}, optimizer="adam", lr=0.01)
        step = prune(ratio=0.8, gradual=0.6, every=1, refine=refine, feedback=feedback)
        model = compress(task, [step], tmp_path / str(feedback)).model
        assert list(zeros(model).values()) == pytest.approx([0.8] * 3, abs=0.01)
        found.append(weights_of(model)["3.weight"])
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    "refine", [lz.Train(**FAST), lz.Distill(**FAST), lz.Distill(method="fitnet", **HINTS, **FAST)]
)
@pytest.mark.parametrize("criterion", ["l1", "hessian"])
def test_zeros_of_an_earlier_step_hold(task, tmp_path, refine, criterion):
    second = {"ratio": 0.5, "gradual": 0.7, "every": 2, "ignore": "1", "criterion": criterion}
    steps = [prune(ratio=0.7), prune(**second, refine=refine, feedback=True)]
    result = compress(task, steps, tmp_path / "out")
    assert list(zeros(result.model).values()) == pytest.approx([0.7] * 3, abs=0.01)


def test_by_what_removing_costs(task, tmp_path):
    """The ratio is reached, by other weights than the smallest; layers that the first stage does not train are not emptied."""
    found = []
    for criterion in ("l1", "hessian"):
        refine = lz.Distill(method="fitnet", **HINTS, **FAST)
        step = lz.Prune(
            granularity="weight", ratio=0.9, gradual=0.5, every=1, criterion=criterion, refine=refine
        )
        model = compress(task, [step], tmp_path / criterion).model
        weights = weights_of(model)
        total = sum(weight.numel() for weight in weights.values())
        assert sum(int((weight == 0).sum()) for weight in weights.values()) == round(0.9 * total)
        found.append(weights["1.weight"] != 0)
    assert all(share < 1 for share in zeros(model).values())
    assert not torch.equal(*found)


def test_frozen_weights_have_no_cost(task, tmp_path):
    model = small().eval()
    model[3].weight.requires_grad_(False)
    step = prune(ratio=0.5, gradual=0.5, criterion="hessian", refine=lz.Train(**FAST))
    with pytest.raises(GraphError, match=r"frozen: '3\.weight'"):
        compress(task, [step], tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_the_ratio_is_reached_in_the_epochs_of_the_stage(task, tmp_path):
    refine = lz.Distill(**{**FAST, "epochs": 5}, stages={"kd": {"epochs": 1}})
    result = compress(task, [prune(ratio=0.8, gradual=0.9, every=1, refine=refine)], tmp_path / "out")
    assert list(zeros(result.model).values()) == pytest.approx([0.8] * 3, abs=0.01)


def test_the_ratio_rises_over_all_stages(task, tmp_path, monkeypatch):
    asked = []

    class Watched(Gradual):
        def __init__(self, *args, updates, **options):
            asked.append(updates)
            super().__init__(*args, updates=updates, **options)

    monkeypatch.setattr("lianzhi.pipeline.weights.Gradual", Watched)
    refine = lz.Distill(method="fitnet", **HINTS, **FAST, stages={"hint": {"epochs": 2, "batch_size": 64}})
    steps = [prune(ratio=0.3), prune(ratio=0.8, gradual=0.9, every=1, refine=refine)]
    result = compress(task, steps, tmp_path / "out")
    batches = {size: task.steps("train", size) for size in (32, 64)}
    assert asked == [round(0.9 * (2 * batches[64] + batches[32]))]
    assert list(zeros(result.model).values()) == pytest.approx([0.8] * 3, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keep": "best"}, "stage 'kd' keeps the best one"), ({"epochs": 0}, "the 'epochs' of all are 0")],
)
def test_stages_that_would_miss_the_ratio_are_refused(task, tmp_path, options, message):
    step = prune(ratio=0.8, gradual=0.6, refine=lz.Distill(**FAST, stages={"kd": options}))
    with pytest.raises(RecipeError, match=message):
        compress(task, [step], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_batch_norm_is_estimated_anew_after_the_training(task, tmp_path):
    found = []
    for reestimate in (0, 2):
        step = prune(ratio=0.8, gradual=1.0, every=1, refine=lz.Train(**FAST, lr=0.05), reestimate=reestimate)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
        found.append(compress(task, [step], tmp_path / str(reestimate), model=model).model.state_dict())
    one, other = found
    assert torch.equal(one["1.weight"], other["1.weight"])
    assert not torch.equal(one["2.running_mean"], other["2.running_mean"])
