"""The recipes of distillation of GLUE's small tasks, each run at tiny size: its steps, and slowly to a model that is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipes import RECIPES, TASKS, small

import lianzhi as lz
from lianzhi import jobs
from lianzhi.pipeline.checks import check
from lianzhi.pipeline.state import Run, State, reading
from lianzhi.pipeline.steps import RUNNERS
from lianzhi.pipeline.store import Store

METRICS = {"mrpc": "accuracy", "rte": "accuracy", "cola": "matthews", "stsb": "pearson"}
STAGES = {
    "tinybert": ["general", "intermediate", "prediction"],
    "mobilebert": ["transfer-1", "transfer-2", "masked_lm", "fine-tuning"],
    "minilm": ["relations", "prediction"],
    "theseus": ["replacing", "finetuning"],
    "theseus-plus": ["replacing", "finetuning"],
}
TERMS = {
    "bilstm": {"mse"},
    "bilstm-alone": set(),
    "distilbert": {"soft", "hard", "cosine"},
    "minilm": set(),
    "mobilebert": {"hard", "soft"},
    "pkd": {"hard", "soft", "patience"},
    "theseus": {"hard"},
    "theseus-plus": {"hard", "soft", "hidden"},
    "tinybert": {"prediction"},
}  # of the last stage; `kd` is in test_student_recipes.py
EACH = [(task, method) for method in TERMS for task in TASKS]


def prepared(task: str, method: str, needs: Path) -> jobs.Job:
    return jobs.prepare(str(RECIPES / f"{task}-{method}.yaml"), overrides=small(needs, task, method))


def require_trained(details: dict[str, Any], method: str) -> None:
    """The stages of a step, and the terms of the last one's loss."""
    assert list(details.get("stages", {})) == STAGES.get(method, [])
    terms = details["history"]["epochs"][-1].get("terms", {})
    assert {term for term in terms if not term.endswith("_weighted")} == TERMS[method]


@pytest.mark.parametrize(("task", "method"), EACH)
def test_the_steps_of_a_recipe_make_a_student(task, method, needs, tmp_path):
    job = prepared(task, method, needs)
    run = Run(job.recipe, job.task, Store(tmp_path / "out"), progress=False)
    check(run, job.model)
    state, details = State(job.model, job.model.eval()), {}
    for place, step in enumerate(job.recipe.steps):
        details = RUNNERS[type(step)](run, state, step, tmp_path / str(place), resume=False)
    require_trained(details, method)
    batch = next(iter(reading(run, state).task.batches("test", 8)))
    with torch.no_grad():
        outputs = state.model.eval()(**batch.inputs)["logits"]
    assert outputs.shape == (8, TASKS[task])
    assert outputs.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "method"), EACH)
def test_a_recipe_leaves_a_model_that_is_loaded(task, method, needs, tmp_path):
    job = prepared(task, method, needs)
    out = tmp_path / "out"
    report = jobs.run(job, output=str(out), resume=False, force=False, progress=False).report
    row = report.rows[-1]
    require_trained(row["details"], method)
    assert method == "bilstm-alone" or row["parameters"] < report.rows[-2]["parameters"]
    found = jobs.evaluate(out, progress=False)
    assert (found["metric"], found["samples"]) == (METRICS[task], 20)
    assert "bilstm" not in method or lz.load(out).pairs == (task != "cola")
