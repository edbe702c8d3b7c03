"""A text model's folder for OneFlow reads sentences as Lianzhi does."""

from __future__ import annotations

import pytest
import torch
from oneflow_as_torch import run_script, same_lines
from tiny_text import SIZES, WORDS, tokens

import lianzhi as lz
from lianzhi import artifact, jobs
from lianzhi.tasks import TextPreprocess

SENTENCES = ["a very good film", "Dull and empty", "never"]


@pytest.mark.parametrize("kind", ["huggingface", "bilstm"])
def test_predict_and_the_script_say_the_same(bert, tmp_path, kind):
    torch.manual_seed(0)
    preprocess = TextPreprocess.open(str(bert), max_length=16, segments=kind == "huggingface")
    options = (
        {"config": SIZES} if kind == "huggingface" else {"vocabulary": len(WORDS), "width": 6, "hidden": 5}
    )
    model = lz.model(kind, num_classes=2, **options).eval()
    with torch.no_grad():
        model.classifier.weight *= 50
    inputs = {name: value for name, value in tokens(1, 7).items() if name in preprocess.inputs}
    members = {"preprocess": preprocess, "labels": ["negative", "positive"], "tokenizer": preprocess.members}
    folder = artifact.save(model, tmp_path / "a", example_inputs=inputs, **members)
    told = jobs.export(folder, target="oneflow", output=tmp_path / "out")
    assert told["files"] == [
        "model.py",
        "weights",
        "preprocess.json",
        "labels.txt",
        "tokenizer",
        "run_in_oneflow.py",
    ]
    same_lines(run_script(tmp_path / "out", *SENTENCES), jobs.predict(folder, SENTENCES))
