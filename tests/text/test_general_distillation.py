"""The ready recipes that begin with general distillation, at the size of a test: from the command to the artifact."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pages import blocks
from tiny_corpus import VOCABULARY, sentences, write_inverted_bert, write_masked_lm, write_texts
from tiny_text import write_table

import lianzhi as lz
from lianzhi import cli, files, jobs
from lianzhi.pipeline.distilling import check_distill, run_distill
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.store import Store

RECIPES = Path(__file__).parents[2] / "recipes"
MEASURE = {"batches": [1], "repeats": 2, "threads": 1}
TEACHER = {"train": {"epochs": 10, "optimizer": "adamw", "lr": 3e-3, "batch_size": 16}}
BERT = {"num_attention_heads": 4, "num_hidden_layers": 2}
TINY = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4}
SMALL = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with SST-2, a corpus and word vectors."""
    folder = tmp_path_factory.mktemp("data")
    plain = [text.replace("good", "film").replace("bad", "plot") for text in sentences(150, 7)]
    lines = dict.fromkeys(f"{text} {word}" for text in plain for word in ("good", "bad"))
    rows = [(text, int(text.endswith("good"))) for text in lines]
    write_table(folder / "glue" / "SST-2" / "train.tsv", rows[:240])
    write_table(folder / "glue" / "SST-2" / "dev.tsv", rows[240:])
    write_texts(folder / "corpora", documents=4)
    draw = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    table = "".join(f"{word} {' '.join(map(str, draw.normal(size=4)))}\n" for word in words)
    (folder / "vectors.txt").write_text(table)
    return folder


def write(recipe, data: Path, folder: Path) -> Path:
    task = {"name": "sst2", "data": str(data / "glue" / "SST-2"), "max_length": 32, "validation": 24}
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**recipe, "task": task, "target": "pytorch", "measure": MEASURE}))
    return file


def distilled(recipe, data: Path, folder: Path) -> tuple[State, dict]:
    """The step alone, without training the teacher or writing an artifact."""
    job = jobs.prepare(str(write(recipe, data, folder)))
    this = Run(job.recipe, job.task, Store(folder / "out"), progress=False)
    state = State(copy.deepcopy(job.model).eval(), job.model.eval())
    step = job.recipe.steps[-1]
    check_distill(this, State(model=job.model, teacher=job.model), step)
    return state, run_distill(this, state, step, folder / "work", resume=False)


def whole(recipe, data: Path, folder: Path) -> tuple[Path, list[dict]]:
    """By the command, a trained teacher first: the output, and the report's rows."""
    file = write({**recipe, "steps": [TEACHER, *recipe["steps"]]}, data, folder)
    assert cli.main(["compress", str(file), "-o", str(folder / "out"), "--quiet"]) == 0
    return folder / "out", json.loads((folder / "out" / "report.json").read_text())["rows"]


def tinybert(data: Path, folder: Path, **stages) -> dict:
    """The recipe, an epoch a stage, with models and data of the test."""
    bert = write_masked_lm(folder / "bert", **BERT)
    found = files.parse_yaml((RECIPES / "sst2-tinybert.yaml").read_text(), "sst2-tinybert.yaml")
    step = found["steps"][-1]["distill"]
    step["student"]["config"] |= {**TINY, **SMALL}
    step["options"]["general"] |= {"data": str(data / "corpora"), "teacher": str(bert)}
    step["options"]["augmentation"]["vectors"] = str(data / "vectors.txt")
    for name, options in step["stages"].items():
        options |= {"epochs": 1, **stages.get(name, {})}
    return {
        "model": {"name": "huggingface", "path": str(bert), "num_classes": 2},
        "steps": found["steps"],
    }


def test_general_distillation_once_for_all_tasks(data, tmp_path):
    """The page's two blocks: a student that read the corpus alone, and a task that begins with it."""
    page = (RECIPES.parent / "docs" / "distillation" / "tinybert.md").read_text(encoding="utf-8")
    stages, student = (files.parse_yaml(block, "tinybert.md") for block in blocks(page, "yaml")[1:])
    recipe = tinybert(data, tmp_path)
    step = recipe["steps"][-1]["distill"]
    step["stages"] = {name: {**step["stages"][name], **given} for name, given in stages["stages"].items()}
    step["stages"]["general"] |= {"epochs": 1}
    del step["options"]["augmentation"]
    file = write(recipe, data, tmp_path / "one")
    assert cli.main(["compress", str(file), "-o", str(tmp_path / "general"), "--quiet"]) == 0
    general = lz.load(tmp_path / "general")
    recipe = tinybert(data, tmp_path / "two", intermediate={"epochs": 0}, prediction={"epochs": 0})
    step = recipe["steps"][-1]["distill"]
    step["student"] = {**student["student"], "artifact": str(tmp_path / "general")}
    for part in ("options", "stages"):
        del step[part]["general"]
    del step["options"]["augmentation"]
    state, _ = distilled(recipe, data, tmp_path / "two")
    for name, value in state.model.state_dict().items():
        same = torch.equal(value, general.state_dict()[name])
        assert same != (name == "classifier.weight"), name


def mobilebert(data: Path, folder: Path, **stages) -> dict:
    """The same of MobileBERT, with the inverted-bottleneck BERT of the test."""
    sizes = {
        "hidden_size": 24,
        "embedding_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **SMALL,
    }
    inverted = {"intra_bottleneck_size": 32, "intermediate_size": 48, "num_feedforward_networks": 1}
    norm = {"normalization_type": "layer_norm", "hidden_act": "gelu"}
    place = write_inverted_bert(folder / "ib-bert", **sizes, **inverted, **norm)
    found = files.parse_yaml((RECIPES / "sst2-mobilebert.yaml").read_text(), "sst2-mobilebert.yaml")
    step = found["steps"][-1]["distill"]
    step["student"]["config"] |= {**sizes, "intra_bottleneck_size": 8, "intermediate_size": 12}
    step["options"] |= {"masked_lm": str(place), "corpus": {"data": str(data / "corpora")}}
    step["options"]["phase"] |= {"epochs": 1}
    for name, options in step["stages"].items():
        options |= {"epochs": 1, **stages.get(name, {})}
    model = {"name": "huggingface", "path": str(place), "num_classes": 2}
    return {"model": model, "steps": found["steps"][1:]}


def test_the_step_of_mobilebert(data, tmp_path):
    state, details = distilled(mobilebert(data, tmp_path), data, tmp_path)
    assert list(details["stages"]) == ["transfer-1", "transfer-2", "masked_lm", "fine-tuning"]
    terms = [set(history["epochs"][0]["terms"]) for history in details["stages"].values()]
    assert terms[0] == terms[1] >= {"normalized", "mean_weighted", "variance", "attention"}
    assert terms[2] == {"hard", "hard_weighted", "soft", "soft_weighted"} == terms[3]
    assert details["history"]["epochs"][0]["metric"] is not None
    layer = state.model.mobilebert.encoder.layer[0]
    assert type(layer.output.LayerNorm).__name__ == "NoNorm"
    assert not any("heads" in name for name, _ in state.model.named_parameters())


@pytest.mark.slow
def test_mobilebert_by_the_command(data, tmp_path):
    recipe = mobilebert(data, tmp_path, **{"fine-tuning": {"epochs": 12, "lr": 1e-2, "batch_size": 16}})
    out, (_, teacher, row) = whole(recipe, data, tmp_path)
    assert min(teacher["value"], row["value"]) > 0.8, (teacher["value"], row["value"])
    assert lz.load(out).config.intra_bottleneck_size == 8
    assert cli.main(["predict", str(out), "the film is good", "--quiet"]) == 0


def test_the_step_of_tinybert(data, tmp_path):
    state, details = distilled(tinybert(data, tmp_path), data, tmp_path)
    assert list(details["stages"]) == ["general", "intermediate", "prediction"]
    terms = [set(history["epochs"][0]["terms"]) for history in details["stages"].values()]
    assert terms[0] == terms[1] >= {"embedding", "hidden_weighted", "attention"}
    assert terms[2] == {"prediction", "prediction_weighted"}
    assert details["history"]["epochs"][0]["metric"] is not None
    assert details["stages"]["general"]["epochs"][0]["metric"] is None
    assert state.model.config.hidden_size == 16
    assert not any("projection" in name for name, _ in state.model.named_parameters())


@pytest.mark.slow
def test_tinybert_by_the_command(data, tmp_path):
    stages = {"intermediate": {"epochs": 3, "lr": 3e-3}, "prediction": {"epochs": 6, "lr": 1e-2}}
    out, (_, teacher, row) = whole(tinybert(data, tmp_path, **stages), data, tmp_path)
    assert min(teacher["value"], row["value"]) > 0.8, (teacher["value"], row["value"])
    assert lz.load(out).config.hidden_size == 16
    assert cli.main(["predict", str(out), "the film is good", "--quiet"]) == 0
