"""The ready recipe that does everything one after another, at tiny size: distil, prune, fewer tokens, distil, int8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny_text import SPELLED, write_model, write_tokenizer

import lianzhi as lz
from lianzhi import artifact, cli, files, train
from lianzhi.tasks import TextPreprocess

RECIPE = Path(__file__).parents[2] / "recipes" / "sst2-chain.yaml"
ROWS = ["original", "distill", "prune", "reduce_vocabulary", "distill", "quantize"]
TRAINING = {"optimizer": "adamw", "lr": 2e-3, "batch_size": 16, "epochs": 5, "precision": "f32"}
TRAINING |= {"schedule": "polynomial", "warmup": 0.1, "clip": 1.0}


@pytest.fixture
def teacher(glue, tmp_path) -> Path:
    """The artifact of a trained model of four layers, with every sign in its vocabulary."""
    bert = write_model(tmp_path / "bert", num_hidden_layers=4, vocab_size=len(SPELLED))
    write_tokenizer(bert, SPELLED)
    task = lz.task("sst2", data=str(glue), tokenizer=str(bert), max_length=32)
    model = lz.model("huggingface", path=str(bert), num_classes=2)
    train.fit(model, task, train.TrainOptions(**TRAINING), progress=False)
    return artifact.save(
        model,
        tmp_path / "teacher",
        example_inputs=task.example_inputs,
        preprocess=task.preprocess,
        labels=task.labels,
        tokenizer=task.preprocess.members,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_ready_recipe_of_the_whole_chain(teacher, glue, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    ready = files.parse_yaml(RECIPE.read_text(), RECIPE.name)
    for step in ready["steps"]:
        if "distill" in step:
            step["distill"] |= TRAINING
        if "prune" in step:
            step["prune"] |= {"calibration": 32}
        if "reduce_vocabulary" in step:
            step["reduce_vocabulary"] = {}  # the tiny vocabulary is smaller than the recipe's size
    recipe = {
        **ready,
        "model": {"artifact": str(teacher)},
        "task": {"name": "sst2", "data": str(glue), "max_length": 32},
        "target": "onnxruntime",
        "measure": {**ready["measure"], "repeats": 2, "threads": 1, "max_drop": 0.1},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    assert cli.main(["compress", str(tmp_path / "r.yaml"), "-o", str(out), "--quiet"]) == 0

    rows = json.loads((out / "report.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ROWS
    parameters = [row["parameters"] for row in rows]
    assert parameters[0] > parameters[1] > parameters[2] > parameters[3] == parameters[4]
    assert rows[-1]["precision"] == "int8"
    assert rows[-1]["value"] > 0.85
    assert rows[-1]["bytes"] < rows[4]["bytes"] < rows[0]["bytes"]

    fewer = rows[3]["details"]["tokens_after"]
    assert fewer < len(SPELLED)
    saved = TextPreprocess.load(out).tokenizer
    assert saved.get_vocab_size() == fewer
    assert saved.token_to_id("unheard") is None
    tables = {
        name: tuple(value.shape) for name, value in lz.load(out).state_dict().items() if "word_emb" in name
    }
    assert any(shape[0] == fewer for shape in tables.values()), tables

    capsys.readouterr()
    assert cli.main(["predict", str(out), "a very good film", "a dull unheard plot", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [line["classes"][0]["name"] for line in found] == ["positive", "negative"]
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 1
