"""The recipes of distillation of GLUE's small tasks, each run at tiny size to a model that is loaded again."""

from __future__ import annotations

import pytest
import torch
from tiny_recipes import RECIPES, TASKS, small

import lianzhi as lz
from lianzhi import jobs

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


def in_turn():
    """Each method for one of the tasks, and for the others too where there is time."""
    for number, method in enumerate(TERMS):
        for place, task in enumerate(TASKS):
            marks = () if place == number % len(TASKS) else pytest.mark.slow
            yield pytest.param(task, method, marks=marks, id=f"{task}-{method}")


@pytest.mark.parametrize(("task", "method"), in_turn())
def test_a_recipe_makes_a_student(task, method, needs, tmp_path):
    job = jobs.prepare(str(RECIPES / f"{task}-{method}.yaml"), overrides=small(needs, task, method))
    out = tmp_path / "out"
    report = jobs.run(job, output=str(out), resume=False, force=False, progress=False).report
    row, details = report.rows[-1], report.rows[-1]["details"]
    assert row["metric"] == METRICS[task]
    assert list(details.get("stages", {})) == STAGES.get(method, [])
    terms = details["history"]["epochs"][-1].get("terms", {})
    assert {term for term in terms if not term.endswith("_weighted")} == TERMS[method]
    if method != "bilstm-alone":
        assert row["parameters"] < report.rows[-2]["parameters"]
    student, batch = lz.load(out).eval(), next(iter(job.task.batches("test", 8)))
    if method == "bilstm":  # whose words are others than the teacher's tokens
        assert student.pairs == (task != "cola")
        assert jobs.evaluate(out, progress=False)["samples"] == 20
        return
    with torch.no_grad():
        outputs = student(**batch.inputs)["logits"]
    assert outputs.shape == (8, TASKS[task])
    assert outputs.isfinite().all()
