"""The section on a smaller vocabulary: its example runs, its recipes are valid, both languages say the same, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks
from tiny_text import SPELLED, write_model, write_sst2, write_tokenizer

from lianzhi import files
from lianzhi.recipe import ReduceVocabulary, parse_step
from lianzhi.tasks.vocabulary import count_tokens

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "text.md", DOCS / "zh" / "text.md"]
HEADINGS = ["## A smaller vocabulary", "## 更小的词表"]
SECTIONS = [
    page.read_text(encoding="utf-8").split(heading)[1].split("\n## ")[0]
    for page, heading in zip(PAGES, HEADINGS, strict=True)
]


def code(text: str, kind: str) -> list[str]:
    return [re.sub(r"\s*# .*", "", block) for block in blocks(text, kind)]


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sst2(tmp_path / "data" / "glue" / "SST-2")
    folder = write_model(tmp_path / "models" / "my-bert", vocab_size=len(SPELLED))
    write_tokenizer(folder, SPELLED)
    (example,) = code(SECTIONS[0], "python")
    names: dict = {}
    exec(compile(example, PAGES[0].name, "exec"), names)
    left = len(names["rows"])
    assert left < len(SPELLED)
    assert f"now {left:,}" in capsys.readouterr().out
    assert names["model"].get_input_embeddings().num_embeddings == left
    assert len(count_tokens(names["task"])) == left


def test_both_languages_have_the_same_code():
    for kind in ("python", "yaml"):
        assert code(SECTIONS[1], kind) == code(SECTIONS[0], kind) != []


def test_the_recipes_are_valid():
    (block,) = code(SECTIONS[0], "yaml")
    steps = [parse_step(step, place) for place, step in enumerate(files.parse_yaml(block, "page")["steps"])]
    assert steps == [ReduceVocabulary(), ReduceVocabulary(least=2), ReduceVocabulary(size=8000)]


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_links_and_anchors_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
        titles = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(encoding="utf-8"), re.M)
        slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in slugs, (target, anchor)
