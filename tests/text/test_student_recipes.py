"""The ready recipes of students of GLUE's tasks that have no tests of their own methods, each run at tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_glue import write_glue
from tiny_text import write_model

from lianzhi import jobs
from lianzhi.pipeline.distilling import check_distill, run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.store import Store

RECIPES = Path(__file__).parents[2] / "recipes"
TERMS = {
    "kd": {"soft", "hard"},
    "minilm": set(),
    "distilbert": {"soft", "hard", "cosine"},
}
NAMES = ["sst2-kd", "sst2-minilm", "sst2-distilbert", "mrpc-kd", "rte-kd", "cola-kd", "stsb-kd"]


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """The folder of a BERT of four layers."""
    return write_model(tmp_path_factory.mktemp("deep"), num_hidden_layers=4)


def distilled(name: str, task: str, deep: Path, folder: Path, *more: str) -> tuple[State, Run, dict]:
    """The recipe's step after two updates a stage, and the state that it leaves."""
    write_glue(folder, task)
    classes = 1 if task == "stsb" else 2
    model = f"{{name: huggingface, path: {deep}, num_classes: {classes}, config: {{num_hidden_layers: 4}}}}"
    small = [f"model={model}", "steps.0.max_steps=2", "steps.0.precision=f32"]
    job = jobs.prepare(str(RECIPES / f"{name}.yaml"), overrides=[*small, *more])
    (step,) = job.recipe.steps
    run = Run(job.recipe, job.task, Store(folder / "out"), progress=False)
    check_distill(run, State(job.model, job.model), step)
    state = State(job.model, job.model.eval())
    return state, run, run_distill(run, state, step, folder / "work", resume=False)


def require_student(state: State, run: Run, details: dict, terms: set[str]) -> None:
    epochs = details["history"]["epochs"]
    assert {term for term in epochs[-1]["terms"] if not term.endswith("_weighted")} == terms
    assert len(state.model.bert.encoder.layer) < len(state.teacher.bert.encoder.layer) == 4
    batch = next(iter(run.task.batches("test", 8)))
    with torch.no_grad():
        outputs = state.model.eval()(**batch.inputs).logits
    assert outputs.shape == (8, run.task.num_classes)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_recipe_makes_a_student(name, deep, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    task, method = name.split("-")
    found = distilled(name, task, deep, tmp_path)
    require_student(*found, TERMS[method])
