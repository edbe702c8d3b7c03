"""The recipes of the goals at tiny size, one after another: each begins with what the one before left."""

from __future__ import annotations

from pathlib import Path

import pytest

import lianzhi as lz
from lianzhi import artifact, codebook, measure, pipeline
from lianzhi import recipe as recipes
from lianzhi.pipeline import Result

READY = Path(__file__).parents[2] / "recipes"
SMALL = ["measure.batches=[1]", "measure.repeats=1", "measure.threads=1", "target=onnxruntime"]


class Chain:
    """Runs ready recipes with one epoch of each training; the dense model is an artifact of its own."""

    def __init__(self, dense: lz.Task, model: object, folder: Path) -> None:
        self.task, self.folder = dense, folder
        artifact.save(model, folder / "dense", example_inputs=dense.example_inputs)

    def run(self, name: str, start: str, *settings: str) -> Result:
        """Run a recipe on what `start` left; settings that end with `teacher` name the dense model."""
        text = [
            f"{key}={self.folder / 'dense'}" if key.endswith("teacher") else f"{key}=1" for key in settings
        ]
        recipe = recipes.load(READY / f"{name}.yaml", overrides=[*SMALL, *text])
        model = artifact.load(self.folder / start)
        return pipeline.run(recipe, model, self.task, output=self.folder / name, progress=False)


def check_packed(result: Result, task: lz.Task) -> None:
    """The packed file is what the last row counts, and gives the accuracy that the row says."""
    file, last = result.path / "model.lzc", result.report.rows[-1]
    assert last["step"] == "pack"
    assert last["bytes"] == file.stat().st_size
    value = measure.evaluate(codebook.load(file), task, progress=False).value
    assert value == pytest.approx(last["details"].get("float_value", last["value"]), abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fashion(tmp_path):
    task = lz.task("synthetic", samples=64, classes=10, shape=(1, 28, 28))
    chain = Chain(task, lz.model("fashion_resnet", widths=(32, 64), blocks=(1, 1)), tmp_path)
    narrow = chain.run("fashion-narrow", "dense", "steps.1.epochs")
    assert narrow.report.rows[-1]["parameters"] * 10 < narrow.report.rows[0]["parameters"]
    fastest = chain.run("fashion-fastest", "fashion-narrow")
    assert [row["step"] for row in fastest.report.rows] == ["original", "quantize"]
    smallest = chain.run(
        "fashion-smallest",
        "fashion-narrow",
        *("steps.0.refine.distill.epochs", "steps.0.refine.distill.teacher", "steps.0.every"),
        *("steps.1.epochs", "steps.1.moving.epochs", "steps.1.teacher"),
    )
    check_packed(smallest, task)
    assert smallest.report.rows[-1]["bytes"] * 5 < narrow.report.rows[-1]["bytes"]
    half = chain.run("fashion-half-point", "dense", "steps.1.epochs")
    assert half.report.rows[-1]["parameters"] * 3 < half.report.rows[0]["parameters"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_resnet56(tmp_path, monkeypatch):
    """ResNet-20 stands in, which has three blocks a stage."""
    monkeypatch.setenv("DATA", "/data")
    task = lz.task("synthetic", samples=64, classes=10, shape=(3, 32, 32))
    chain = Chain(task, lz.model("resnet20"), tmp_path)
    first = chain.run("resnet56-21-blocks", "dense", "steps.3.epochs")
    assert [len(getattr(first.model, f"layer{index}")) for index in (1, 2, 3)] == [2, 3, 3]
    second = chain.run("resnet56-12-blocks", "resnet56-21-blocks", "steps.3.epochs", "steps.3.teacher")
    assert [len(getattr(second.model, f"layer{index}")) for index in (1, 2, 3)] == [1, 2, 2]
    smallest = chain.run(
        "resnet56-smallest",
        "resnet56-12-blocks",
        *("steps.0.refine.distill.epochs", "steps.0.refine.distill.teacher", "steps.0.every"),
        *("steps.1.epochs", "steps.1.moving.epochs", "steps.1.teacher"),
    )
    check_packed(smallest, task)
    assert smallest.report.rows[-1]["bytes"] * 5 < second.report.rows[-1]["bytes"]
