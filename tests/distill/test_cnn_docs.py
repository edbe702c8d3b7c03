"""The overview of distillation of CNNs: its examples run, its recipes are valid, its table has every method's default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.distill import methods
from lianzhi.distill.methods.by_features import FeatureOptions
from lianzhi.pipeline.distilling import options_of
from lianzhi.recipe import parse_step

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation" / "cnn.md", DOCS / "zh" / "distillation" / "cnn.md"]


def test_the_examples_run_in_order(capsys):
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(PAGES[0])):
        exec(compile(block, f"{PAGES[0].name}, example {number + 1}", "exec"), names)
    assert "Resize" in capsys.readouterr().out


def test_the_chinese_page_has_the_same_examples():
    for kind in ("python", "yaml"):
        assert blocks(PAGES[1], kind) == blocks(PAGES[0], kind)


def test_the_recipes_are_valid():
    (recipe,) = blocks(PAGES[0], "yaml")
    steps = [parse_step(step, "page") for step in files.parse_yaml(recipe, "page")["steps"]]
    assert [options_of(step).to_dict()["weight"] for step in steps] == [0.6, 50]


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_table_leads_to_every_method_and_has_its_weight(page):
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(\1\.md\) \|.*\| ([\d.]+) \|$", page.read_text(encoding="utf-8"), re.M
    )
    stated = {name: float(weight) for name, weight in rows}
    found = {}
    for name in methods.registry.names():
        config = methods.registry.get(name).config
        if config is not None and issubclass(config, FeatureOptions):
            found[name] = config().weight
    assert stated == found
    assert len(found) == 8
