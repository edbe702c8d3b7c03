"""The overview of distillation by logits: its example runs, its recipe is valid, its table names and links every method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.pipeline.distilling import options_of
from lianzhi.recipe import parse_step

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation" / "logits.md", DOCS / "zh" / "distillation" / "logits.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
NAMES = ["kd", "dkd", "dist", "logit_loss"]


def test_the_example_runs():
    (example,) = blocks(TEXTS[0], "python")
    names: dict = {}
    exec(compile(example, PAGES[0].name, "exec"), names)
    assert list(names["terms"]) == NAMES
    assert set(names["terms"]["dkd"]) >= {"target", "others", "others_weighted", "hard_weighted"}


def test_the_chinese_page_has_the_same_examples():
    for kind in ("python", "yaml"):
        assert blocks(TEXTS[1], kind) == blocks(TEXTS[0], kind)


def test_the_recipe_is_valid():
    (recipe,) = blocks(TEXTS[0], "yaml")
    steps = [parse_step(step, "page") for step in files.parse_yaml(recipe, "page")["steps"]]
    options = [options_of(step).to_dict() for step in steps]
    assert options[0]["alpha"] == 0.7
    assert options[1]["beta"] == 2.0
    assert options[2]["gamma"] == 1.0


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_the_table_leads_to_every_method(text):
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.md\) \|", text, re.M) == NAMES
