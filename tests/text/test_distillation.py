"""Ready recipes of distillation at tiny size, from the command to a classifier that predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_text import SIZES, WORDS, write_model

import lianzhi as lz
from lianzhi import cli, files
from lianzhi.errors import DataError, GraphError

RECIPES = Path(__file__).parents[2] / "recipes"
TRAINING = {"optimizer": "adamw", "lr": 2e-3, "batch_size": 16, "epochs": 5, "precision": "f32"}
TRAINING |= {"schedule": "polynomial", "warmup": 0.1, "clip": 1.0}


def test_the_ready_recipe_of_pkd(glue, tmp_path, capsys):
    """Four layers teach three: the recipe as it stands, but for model, data, rate and epochs."""
    ready = files.parse_yaml((RECIPES / "sst2-pkd.yaml").read_text(), "sst2-pkd.yaml")
    (step,) = ready["steps"]
    step["distill"] |= TRAINING
    recipe = {
        **ready,
        "model": {
            "name": "huggingface",
            "path": str(write_model(tmp_path / "bert", num_hidden_layers=4)),
            "num_classes": 2,
        },
        "task": {"name": "sst2", "data": str(glue), "max_length": 32},
        "target": "pytorch",
        "measure": {"batches": [1], "repeats": 2, "threads": 1},
        "steps": [{"train": TRAINING}, step],
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    assert cli.main(["compress", str(tmp_path / "r.yaml"), "-o", str(out), "--quiet"]) == 0
    _, teacher, student = json.loads((out / "report.json").read_text())["rows"]
    assert teacher["value"] > 0.9
    assert student["value"] > 0.9
    assert student["parameters"] < teacher["parameters"]
    epochs = student["details"]["history"]["epochs"]
    assert set(epochs[0]["terms"]) == {
        f"{name}{end}" for name in ("hard", "soft", "patience") for end in ("", "_weighted")
    }
    assert epochs[-1]["terms"]["patience"] < epochs[0]["terms"]["patience"]
    first = epochs[0]["terms"]
    assert first["patience_weighted"] == pytest.approx(100 * first["patience"], rel=1e-5)
    model = lz.load(out)
    assert len(model.bert.encoder.layer) == model.config.num_hidden_layers == 3
    capsys.readouterr()
    assert cli.main(["predict", str(out), "a very good film", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["classes"][0]["name"] == "positive"


def test_widths_that_pruning_leaves_are_known_before_anything_is_trained(glue, tmp_path):
    """Pruned to half its width, a student's states no longer stand beside the teacher's."""
    bert = write_model(tmp_path / "bert", num_hidden_layers=4)
    task = lz.task("sst2", data=str(glue), tokenizer=str(bert), max_length=32)
    model = lz.model("huggingface", path=str(bert), num_classes=2)
    steps = [
        lz.Train(epochs=1),
        lz.Prune(granularity="hidden", ratio=0.5),
        lz.Distill(method="pkd", student={"layers": 2}, epochs=1),
    ]
    with pytest.raises(lz.errors.DataError, match=r"steps\.2 \(distill\).*the student's are 16 wide"):
        lz.compress(model, task, steps, output=tmp_path / "out", target="pytorch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("who", "changes", "message"),
    [
        ("model", {"max_position_embeddings": 8}, r"not on the longest text, of \d\d tokens .*max_length"),
        (
            "student",
            {"vocab_size": len(WORDS) - 8},
            r"not on a text with token \d+ \([^;]*; give a model and",
        ),
        (
            "student",
            {"vocab_size": len(WORDS) - 1},
            r"not on the tokenizer's last token, \d+ \([^;]*; give a model and",
        ),
        ("teacher", {"max_position_embeddings": 8}, r"not on the longest text, of \d\d tokens .*max_length"),
    ],
)
def test_who_cannot_read_every_text_is_refused_before_anything_is_trained(
    glue, bert, tmp_path, who, changes, message
):
    """A sentence of median length is no longer than such a model takes; training met the first one that is."""
    task = lz.task("sst2", data=str(glue), tokenizer=str(bert), max_length=32)
    small = {"name": "huggingface", "config": {**SIZES, **changes}}
    model = lz.model("huggingface", num_classes=2, config=SIZES)
    step = {"epochs": 1}
    if who == "model":
        model = lz.model(**small, num_classes=2)
    elif who == "student":
        step["student"] = small
    else:
        teacher = lz.model(**small, num_classes=2)
        short = {"input_ids": torch.tensor([[2, 5, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
        lz.save(teacher, tmp_path / "teacher", example_inputs=short)
        step["teacher"] = str(tmp_path / "teacher")
    with pytest.raises(DataError, match=rf"the {who} .*runs on other texts of task 'sst2', and {message}"):
        lz.compress(model, task, [lz.Distill(**step)], output=tmp_path / "out", target="pytorch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("who", ["model", "student"])
def test_who_fixes_the_length_is_refused_before_anything_is_written(glue, bert, tmp_path, who):
    """Funnel's pools count tokens: ONNX has it of one length alone."""
    sizes = {
        "model_type": "funnel",
        "vocab_size": 100,
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 24,
    }
    funnel = {"name": "huggingface", "config": {**sizes, "block_sizes": [1, 1], "num_decoder_layers": 1}}
    task = lz.task("sst2", data=glue, tokenizer=str(bert), max_length=16)
    model = lz.model("huggingface", path=str(bert), num_classes=2)
    step = lz.Distill(method="kd", student=funnel, epochs=1)
    if who == "model":
        model, step = lz.model(**funnel, num_classes=2), lz.Train(epochs=1)
    options = {"output": tmp_path / "out", "target": "onnxruntime", "progress": False}
    with pytest.raises(GraphError, match="with a free batch and length of tokens Funnel"):
        lz.compress(model, task, [step], **options)
    assert not (tmp_path / "out").exists()
