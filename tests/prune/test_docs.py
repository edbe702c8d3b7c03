"""The examples of the pages on pruning run, and the pages name every criterion, scope, limit and option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.prune import SCHEDULES, criteria
from lianzhi.prune._plan import BY_SENSITIVITY
from lianzhi.prune.selection import SCOPES
from lianzhi.recipe import Prune, Sparsify, parse_step

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "pruning.md", DOCS / "zh" / "pruning.md"]


def test_the_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, names = blocks(PAGES[0]), {}
    assert len(found) >= 8
    for number, block in enumerate(found):
        exec(compile(block, f"{PAGES[0].name}, example {number + 1}", "exec"), names)


def test_the_chinese_page_has_the_same_examples():
    def code(page):
        return [re.sub(r"\s*#.*", "", block) for block in blocks(page)]

    assert code(PAGES[1]) == code(PAGES[0])


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_recipes_are_valid(page):
    text = page.read_text(encoding="utf-8")
    steps = [step for block in blocks(text, "yaml") for step in files.parse_yaml(block, page.name)["steps"]]
    inline = re.findall(r"`((?:prune|sparsify|refine): \{.*?\})`", text)
    steps += [files.parse_yaml(item, page.name) for item in inline]
    steps = [step.get("refine", step) for step in steps]
    parsed = [parse_step(step, index) for index, step in enumerate(steps)]
    assert any(isinstance(step, Prune) and step.refine for step in parsed)
    assert any(isinstance(step, Prune) and step.scope == "sensitivity" for step in parsed)
    assert any(isinstance(step, Sparsify) for step in parsed)


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_tables_are_complete(page):
    text = page.read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(criteria.registry.names()) <= named
    assert {*SCOPES, BY_SENSITIVITY} <= named
    for name in criteria.registry.names():
        (row,) = ["|".join(row) for row in rows if f"`{name}`" in row[0] and len(row) == 5]
        entry = criteria.registry.get(name)
        for option in entry.config.model_fields if entry.config else ():
            assert f"`{option}`" in row, (name, option)
        if entry.paper:
            assert entry.paper in row, (name, entry.paper)
    assert all(f"`{name}`" in text for name in SCHEDULES)
