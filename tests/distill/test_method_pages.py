"""The pages on methods for transformers: examples run, recipes parse, options and papers are there, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.distill import methods
from lianzhi.recipe import Distill, parse_step

pytest.importorskip("transformers")
DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("pkd", "minilm", "distilbert", "theseus", "theseus_plus", "layerwise")
PAGES = [folder / "distillation" / f"{name}.md" for folder in (DOCS, DOCS / "zh") for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_run_in_order(name, tmp_path, monkeypatch):
    from tiny_corpus import sentences, write_tokenizer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    write_tokenizer(tmp_path / "models" / "my-bert")
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "some.txt").write_text("\n".join(sentences(120, 0)))
    page, values = DOCS / "distillation" / f"{name}.md", {}
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found):
        exec(compile(block, f"{page.name}, example {number + 1}", "exec"), values)


@pytest.mark.parametrize("name", NAMES)
def test_the_chinese_page_has_the_same_code(name):
    for kind in ("python", "yaml"):
        one, other = (
            [re.sub(r"\s*#.*", "", block) for block in blocks(folder / "distillation" / f"{name}.md", kind)]
            for folder in (DOCS, DOCS / "zh")
        )
        assert one == other


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parents[1].name}-{page.stem}")
def test_options_papers_and_recipes(page):
    text = page.read_text(encoding="utf-8")
    entry = methods.registry.get(page.stem)
    assert f"]({entry.paper})" in text or not entry.paper
    stated = {
        option
        for line in text.splitlines()
        if line.startswith("| `")
        for option in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert set(entry.config.model_fields) <= stated
    steps = [step for block in blocks(page, "yaml") for step in files.parse_yaml(block, page.name)["steps"]]
    parsed = [parse_step(step, f"{number}") for number, step in enumerate(steps)]
    taught = [
        step for one in parsed for step in (one, getattr(one, "refine", None)) if isinstance(step, Distill)
    ]
    assert {step.method for step in taught} == {page.stem}
    for step in taught:
        entry.config(**step.options)
    other = text.split("](", 1)[1].split(")", 1)[0]
    assert (page.parent / other).resolve() in PAGES
