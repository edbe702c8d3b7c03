"""The recipes of SST-2 on GLUE's small tasks, with what the comments of `recipes/mrpc-kd.yaml` and its like say to set."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import VOCABULARY, write_inverted_bert, write_texts
from tiny_glue import FOLDERS, write_glue
from tiny_text import write_model

import lianzhi as lz
from lianzhi import jobs

RECIPES = Path(__file__).parents[2] / "recipes"
OTHERS = ["mrpc", "rte", "cola", "stsb"]
OWN_MODEL = ["sst2-mobilebert", "sst2-bilstm-alone"]
INVERTED = {"vocab_size": len(VOCABULARY), "hidden_size": 24, "embedding_size": 12, "num_hidden_layers": 2}
INVERTED |= {"num_attention_heads": 4, "intra_bottleneck_size": 8, "intermediate_size": 12}
LIKE_SST2 = sorted(
    {file.stem for file in RECIPES.glob("sst2-*.yaml")} - {"sst2-teacher", "sst2-smallest", *OWN_MODEL}
)


def said(task: str) -> list[list[str]]:
    """The settings that the comments of a recipe give: for most recipes, for two, and for the smallest."""
    text = (RECIPES / f"{task}-kd.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^#   (--set .*)$", text, re.MULTILINE)
    return [[word for word in shlex.split(line) if word != "--set"] for line in lines]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> dict[str, Path]:
    """Artifacts of a tiny BERT, of two classes and of a score."""
    folder = tmp_path_factory.mktemp("teachers")
    place = write_model(folder / "bert", num_hidden_layers=4)
    found = {}
    for task in ("mrpc", "stsb"):
        write_glue(folder, task)
        data = lz.task(task, data=str(folder / "glue" / FOLDERS[task]), tokenizer=str(place))
        classes = 1 if task == "stsb" else 2
        options = {"config": {"num_hidden_layers": 4}, "num_classes": classes}
        model = lz.model("huggingface", path=str(place), **options).eval()
        example, read = data.example_inputs, data.preprocess
        found[task] = lz.save(
            model, folder / task, example_inputs=example, preprocess=read, tokenizer=read.members
        )
    return found


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for task in OTHERS:
        write_glue(tmp_path, task)
    return tmp_path


def given(task: str, lines: list[str], teacher: dict[str, Path]) -> list[str]:
    """The settings, with the folders of the tests in place of a trained teacher's and of a pruned one's."""
    place = str(teacher["stsb" if task == "stsb" else "mrpc"])
    changed = [re.sub(rf"=out/{task}-(teacher|prune)$", f"={place}", line) for line in lines]
    return [line.replace("$DATA", str(Path.cwd())) for line in changed]


@pytest.mark.parametrize(("number", "name"), list(enumerate(LIKE_SST2)))
def test_a_recipe_of_sst2_is_prepared_for_another_task(number, name, teacher, data):
    """Each for one of the tasks, in turn."""
    task = OTHERS[number % len(OTHERS)]
    job = jobs.prepare(str(RECIPES / f"{name}.yaml"), overrides=given(task, said(task)[0], teacher))
    assert (job.task.name, job.task.num_classes) == (task, 1 if task == "stsb" else 2)


@pytest.mark.parametrize("name", OWN_MODEL)
def test_a_recipe_with_a_model_of_its_own_takes_no_artifact(name, teacher, data):
    with pytest.raises(lz.LianzhiError, match="an artifact brings its own architecture and weights"):
        jobs.prepare(str(RECIPES / f"{name}.yaml"), overrides=given("mrpc", said("mrpc")[0], teacher))


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_the_bilstm_alone_on_another_task(task, teacher, data):
    np.savez("v.npz", words=np.asarray(["good", "bad"]), vectors=np.ones((2, 6), np.float32))
    own = [*given(task, said(task)[1], teacher), "model.vectors=v.npz"]
    assert jobs.dry_run(jobs.prepare(str(RECIPES / "sst2-bilstm-alone.yaml"), overrides=own)).steps


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_the_smallest_on_another_task(task, teacher, data):
    recipe = str(RECIPES / "sst2-smallest.yaml")
    most, _, smallest = (given(task, lines, teacher) for lines in said(task))
    with pytest.raises(lz.LianzhiError, match="sst2-teacher"):
        jobs.dry_run(jobs.prepare(recipe, overrides=most))
    assert jobs.dry_run(jobs.prepare(recipe, overrides=smallest)).steps


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_mobilebert_on_another_task(task, data):
    write_texts(data / "corpora", documents=3)
    sizes = {**INVERTED, "num_feedforward_networks": 1, "normalization_type": "layer_norm"}
    bert = write_inverted_bert(data / "out" / "ib-bert", **sizes)
    own = [line.replace("$DATA", str(data)) for line in said(task)[1]]
    student = {"model_type": "mobilebert", **INVERTED, "num_feedforward_networks": 2}
    small = [f"steps.1.student.config={student}", f"task.tokenizer={bert}"]
    job = jobs.prepare(str(RECIPES / "sst2-mobilebert.yaml"), overrides=[*own, *small])
    assert job.task.num_classes == (1 if task == "stsb" else 2)
    assert jobs.dry_run(job).steps
