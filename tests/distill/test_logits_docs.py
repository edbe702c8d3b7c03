"""The pages on distillation by logits: the example runs, the recipe is valid, the table has every option's default."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.distill import methods
from lianzhi.pipeline.distilling import options_of
from lianzhi.recipe import parse_step

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation" / "logits.md", DOCS / "zh" / "distillation" / "logits.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]


def test_the_example_runs():
    (example,) = blocks(TEXTS[0], "python")
    names: dict[str, object] = {}
    exec(compile(example, PAGES[0].name, "exec"), names)
    assert names["stage"].step.grown == 1.0


def test_the_chinese_page_has_the_same_examples():
    for kind in ("python", "yaml"):
        assert blocks(TEXTS[1], kind) == blocks(TEXTS[0], kind)


def test_the_recipe_is_valid():
    recipes = [files.parse_yaml(recipe, "page") for recipe in blocks(TEXTS[0], "yaml")]
    steps = [parse_step(step, "page") for recipe in recipes for step in recipe["steps"]]
    options = [options_of(step).to_dict() for step in steps]
    assert options[0]["alpha"] == 0.7
    assert options[1]["weight"] == 9.0
    assert options[2]["beta"] == 2.0
    assert options[3]["loss_options"] == {"beta": 0.1}


def written(value: object) -> str:
    """A default as the table writes it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "1/12" if value == 1 / 12 else f"{value:g}"


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
@pytest.mark.parametrize("name", ["kd", "dkd", "dist"])
def test_the_table_has_every_option_with_its_default(text, name):
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", text, re.M)
    _, options, paper = row.split(" | ")
    stated = dict(re.findall(r"`(\w+)` ([\w./]+)", options))
    entry = methods.registry.get(name)
    assert entry.paper in paper
    assert stated == {key: written(value) for key, value in entry.config().to_dict().items()}
