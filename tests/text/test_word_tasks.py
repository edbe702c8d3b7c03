"""A task whose tokens are the words of its own training split, and recipes over it from training to a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import sentences, write_table

import lianzhi as lz
from lianzhi import jobs, models
from lianzhi.errors import DataError
from lianzhi.tasks.texts import texts_of
from lianzhi.tasks.words import split_words

RECIPES = Path(__file__).parents[2] / "recipes"
SIZES = {"hidden": 8, "linear": 8}


def write_vectors(file, words, width=5):
    draw = np.random.default_rng(0)
    np.savez(file, words=np.asarray(words), vectors=draw.normal(size=(len(words), width)).astype(np.float32))
    return str(file)


def test_words_are_those_of_the_training_split_alone(glue):
    task = lz.task("sst2", data=glue, tokenizer="words")
    train = {word for words in split_words(texts_of(task, "train").texts) for word in words}
    assert set(task.preprocess.vocabulary) == train | {"[PAD]", "[UNK]"}
    elsewhere = {word for words in split_words(texts_of(task, "test").texts) for word in words}
    few = lz.task("sst2", data=glue, tokenizer="words:12", limit=20)
    assert len(few.preprocess.vocabulary) == 12
    counted = {word for words in split_words(texts_of(few, "train").texts) for word in words}
    assert set(few.preprocess.vocabulary[2:]) <= counted
    assert elsewhere - set(few.preprocess.vocabulary)


def test_pairs_have_segments(tmp_path):
    rows = [
        (number, one, two, "entailment" if label else "not_entailment")
        for number, ((one, label), (two, _)) in enumerate(
            zip(sentences(80, 1), sentences(80, 2), strict=True)
        )
    ]
    header = "index\tsentence1\tsentence2\tlabel"
    write_table(tmp_path / "train.tsv", rows[:60], header)
    write_table(tmp_path / "dev.tsv", rows[60:], header)
    task = lz.task("rte", data=tmp_path, tokenizer="words")
    batch = next(iter(task.batches("test", 3)))
    assert set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert batch.inputs["token_type_ids"].max() == 1


def test_a_number_of_words_that_is_none(glue):
    with pytest.raises(DataError, match="words:5000"):
        lz.task("sst2", data=glue, tokenizer="words:some")


def recipe(tmp_path, glue, **options):
    values = {
        "model": {"name": "bilstm", **SIZES, **options},
        "task": {"name": "sst2", "data": str(glue), "tokenizer": "words"},
        "target": "onnxruntime",
        "measure": {"batches": [1], "repeats": 1},
        "steps": [{"train": {"epochs": 6, "batch_size": 32, "optimizer": "adam", "lr": 0.01}}],
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(values))
    return str(file)


def test_a_recipe_s_model_has_the_words_and_their_vectors(tmp_path, glue):
    place = write_vectors(tmp_path / "v.npz", ["good", "film", "nowhere"])
    job = jobs.prepare(recipe(tmp_path, glue, vectors=place))
    words = job.task.preprocess.vocabulary
    config = models.describe(job.model)["config"]
    assert (config["vocabulary"], config["width"], config["pairs"]) == (len(words), 5, False)
    row = torch.from_numpy(np.load(place)["vectors"][0])
    assert torch.equal(job.model.tuned.weight[words.index("good")], row)
    assert any("have a vector in" in remark for remark in job.remarks)


def test_the_ready_recipe_from_training_to_a_sentence(tmp_path, glue, monkeypatch):
    (tmp_path / "glue").symlink_to(glue)
    monkeypatch.setenv("DATA", str(tmp_path))
    place = write_vectors(tmp_path / "v.npz", ["good", "film", "nowhere"])
    changes = {"model.vectors": place, "model.hidden": 8, "target": "onnxruntime", "steps.0.lr": 0.02}
    changes |= {"measure": '{"batches": [1], "repeats": 1}', "steps.0.batch_size": 32}
    job = jobs.prepare(
        str(RECIPES / "sst2-bilstm-alone.yaml"),
        overrides=[f"{key}={value}" for key, value in changes.items()],
    )
    jobs.run(job, output=str(tmp_path / "out"), resume=False, force=False, progress=False)
    assert jobs.evaluate(tmp_path / "out", progress=False)["value"] > 0.9
    said = jobs.predict(tmp_path / "out", ["a great, funny film", "a dull story"])
    assert [row["classes"][0]["name"] for row in said] == ["positive", "negative"]
