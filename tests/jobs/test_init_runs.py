"""The recipe that `lianzhi init` writes runs as it stands: images by a user's own model, texts by words and by a transformer."""

from __future__ import annotations

import json

import pytest
from places import write_net, write_photos, write_reviews

from lianzhi.cli import main

QUICK = [f"--set=steps.{step}.epochs=1" for step in (0, 2)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / ".cache"))
    return tmp_path


def run(*arguments):
    """Write the recipe, run it, and give its report."""
    assert main(["init", "--target", "onnxruntime", *arguments]) == 0
    assert main(["compress", "recipe.yaml", "-o", "out/recipe", "--quiet"]) == 0
    with open("out/recipe/report.json") as file:
        return json.load(file)


def test_images_by_a_model_of_ones_own(here, capsys):
    write_net(here)
    write_photos(here / "photos")
    rows = run(*QUICK)["rows"]
    assert [row["step"] for row in rows] == ["original", "train", "prune", "distill", "quantize"]
    assert rows[-1]["parameters"] < 0.8 * rows[0]["parameters"]
    capsys.readouterr()
    assert main(["predict", "out/recipe", "photos/cat/0.png", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {line["name"] for line in found["classes"]} == {"cat", "dog", "owl"}


def test_texts_by_words(here):
    write_reviews(here / "reviews.csv")
    rows = run(
        "--model", "bilstm", "--goal", "accurate", "--set", "steps.0.epochs=2", "--set", "model.hidden=16"
    )["rows"]
    assert [row["step"] for row in rows] == ["original", "train", "quantize"]
    assert rows[-1]["metric"] == "accuracy"


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["fastest", "smallest"])
def test_texts_by_a_transformer(here, goal):
    pytest.importorskip("transformers")
    from tiny_text import write_model, write_sst2

    write_model(here / "bert")
    write_sst2(here / "SST-2")
    rows = run("--goal", goal, *QUICK)["rows"]
    steps = ["original", "train", "prune", "distill", "quantize"]
    if goal == "smallest":
        steps = [*steps[:-1], "reduce_vocabulary", "quantize", "pack"]
        assert (here / "out" / "recipe" / "model.lzc").is_file()
    assert [row["step"] for row in rows] == steps
    assert rows[-1]["bytes"] < rows[0]["bytes"]
