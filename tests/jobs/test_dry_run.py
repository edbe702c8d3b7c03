"""What `--dry-run` counts: every stage of a method, each with its own options."""

from __future__ import annotations

import sys

import pytest
from torch import nn

import lianzhi as lz
from lianzhi import jobs
from lianzhi.jobs.prepare import Job
from lianzhi.recipe import Recipe

MODULE = sys.modules["lianzhi.jobs.dry_run"]  # the package has a function of this name
FAST = {"epochs": 1, "batch_size": 32, "lr": 0.01, "augment": False}


@pytest.fixture
def steps_of(monkeypatch):
    """Of a recipe's steps, what `dry_run` says, where each training step takes a second and a teacher nothing."""
    monkeypatch.setattr(MODULE, "_timed", lambda job, options: 1.0)
    monkeypatch.setattr(MODULE, "TEACHER", 1.0)
    task = lz.task("synthetic", samples=320, classes=4, shape=(3, 8, 8))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, 4))

    def made(*steps):
        return jobs.dry_run(Job("job", Recipe(steps=list(steps)), model, task))

    return made, task


def test_each_stage_is_counted_by_its_own_options(steps_of):
    made, task = steps_of
    stages = {"hint": {"epochs": 3, "batch_size": 16}, "fitnet": {"max_steps": 2, "accumulate": 3}}
    hint = {"student_layers": ["1"], "teacher_layers": ["1"], "hint_first": True}
    found = made(lz.Distill(method="fitnet", options=hint, stages=stages, **FAST))
    (step,) = found.steps
    assert step["seconds"] == 3 * task.steps("train", 16) + 6
    assert step["own_data"] == []


def test_pruning_trains_between_its_rounds_and_a_teacher_takes_time(steps_of, monkeypatch):
    made, task = steps_of
    each = task.steps("train", 32)
    refine = lz.Distill(method="kd", stages={"kd": {"epochs": 2}}, **FAST)
    found = made(
        lz.Train(**FAST),
        lz.Prune(granularity="weight", ratio=0.5, iterations=4, refine=refine),
        lz.Distill(method="kd", **FAST),
    )
    assert [step["seconds"] for step in found.steps] == [each, 3 * 2 * each, each]
    monkeypatch.setattr(MODULE, "TEACHER", 1.5)
    found = made(lz.Train(**FAST), lz.Distill(method="kd", **FAST))
    assert [step["seconds"] for step in found.steps] == [each, 1.5 * each]
