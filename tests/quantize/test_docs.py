"""The examples of the sections on training, control and mixed precision run; the recipes on the pages and the ready one work."""

import re
from pathlib import Path

import pytest
from nets import Residual, made
from pages import blocks

import lianzhi as lz
from lianzhi import files, pipeline, quantize, train
from lianzhi import recipe as recipes
from lianzhi.recipe import parse_step

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / "quantization.md", ROOT / "docs" / "zh" / "quantization.md"]
SECTIONS = [
    ("Quantization-aware training", "Accuracy control", "Mixed precision"),
    ("量化感知训练", "精度控制", "混合精度"),
]


def examples(page, titles):
    text = page.read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    return [re.sub(r"\s*#.*", "", block) for title in titles for block in blocks(parts[title])]


def test_the_examples_run():
    model, inputs = made(Residual)
    labels = model(inputs).argmax(1)
    parts = {key: [(inputs, labels)] for key in ("train", "validation", "calibration", "test")}
    task, batches = lz.Task(**parts), [inputs]
    names = {"lz": lz, "quantize": quantize, "train": train, "model": model, "task": task, "batches": batches}
    names["quantized"] = quantize.quantize(model, task.example_inputs, batches)
    found = examples(PAGES[0], SECTIONS[0])
    assert len(found) == 3
    for number, block in enumerate(found):
        exec(compile(block.replace("budget=0.2", "budget=0.3"), f"example {number + 1}", "exec"), names)


def test_the_chinese_page_has_the_same_examples():
    assert examples(PAGES[1], SECTIONS[1]) == examples(PAGES[0], SECTIONS[0])


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_recipes_are_valid(page):
    text = page.read_text(encoding="utf-8")
    steps = [step for block in blocks(text, "yaml") for step in files.parse_yaml(block, page.name)["steps"]]
    steps += [files.parse_yaml(item, page.name) for item in re.findall(r"`(quantize: \{.*?\})`", text)]
    parsed = [parse_step(step, f"{index}") for index, step in enumerate(steps)]
    assert any(step.training for step in parsed)
    assert any(step.max_drop for step in parsed)


def test_the_ready_recipe_runs_at_small_size(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    recipe = recipes.load(
        ROOT / "recipes" / "cifar10-resnet20-qat.yaml",
        overrides=["target=onnxruntime", "measure.batches=[1]", "measure.repeats=1", "precision=int8"],
    )
    small = recipe.model_copy(
        update={
            "steps": tuple(
                parse_step(_shortened(step.to_dict(), recipes.kind_of(step)), "") for step in recipe.steps
            )
        }
    )
    task = lz.task("synthetic", samples=64, classes=10, shape=(3, 16, 16))
    result = pipeline.run(small, made(Residual)[0], task, output=tmp_path / "out", progress=False)
    assert [row["step"] for row in result.report.rows] == ["original", "train", "quantize"]
    assert result.report.decision["precision"] == "int8"


def _shortened(options, kind):
    target = options if kind == "train" else options["training"]
    target |= {"max_steps": 1, "batch_size": 16}
    return {kind: options}
