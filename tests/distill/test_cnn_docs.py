"""The pages on distillation of CNNs: their examples run, and the tables are the methods' defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi.distill import methods
from lianzhi.distill.methods.by_features import FeatureOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation" / "cnn.md", DOCS / "zh" / "distillation" / "cnn.md"]


def test_the_examples_run_in_order(capsys):
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(PAGES[0])):
        exec(compile(block, f"{PAGES[0].name}, example {number + 1}", "exec"), names)
    assert "Resize" in capsys.readouterr().out
    assert blocks(PAGES[1]) == blocks(PAGES[0])


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_the_table_has_every_method_with_its_weight(page):
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+)[^|]*\|$", page.read_text(encoding="utf-8"), re.M)
    stated = {name: float(weight) for name, weight in rows}
    found = {}
    for name in methods.registry.names():
        config = methods.registry.get(name).config
        if config is not None and issubclass(config, FeatureOptions):
            found[name] = config().weight
    assert {name: stated[name] for name in found} == found
    assert len(found) == 8
