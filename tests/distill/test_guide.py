"""The guide to the step `distill`: its examples run, its table is the registry's, its recipes are valid, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.distill import methods
from lianzhi.pipeline.distilling import options_of
from lianzhi.recipe import Distill, parse_step
from lianzhi.train import TrainOptions

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation.md", DOCS / "zh" / "distillation.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
both = pytest.mark.parametrize(("page", "text"), list(zip(PAGES, TEXTS, strict=True)), ids=["en", "zh"])


def rows(text: str, columns: int) -> list[list[str]]:
    """The rows of tables of so many columns that begin with a name."""
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:3] == "| `"
    ]
    return [row for row in found if len(row) == columns]


def test_the_examples_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(methods.registry, "_entries", dict(methods.registry._entries))
    names: dict = {}
    for number, block in enumerate(blocks(TEXTS[0], "python")):
        exec(compile(block, f"{PAGES[0].name}, example {number + 1}", "exec"), names)
    assert [stage.name for stage in names["lessons"].stages] == ["hint", "fitnet"]
    terms = names["result"].report.rows[-1]["details"]["history"]["epochs"][-1]["terms"]
    assert terms["soft_weighted"] == pytest.approx(2 * terms["soft"])
    assert len(list((tmp_path / "cache" / "teachers").iterdir())) == 1


def test_the_chinese_page_has_the_same_examples():
    for kind in ("python", "yaml"):
        found, other = ([re.sub(r"\s*#.*", "", block) for block in blocks(text, kind)] for text in TEXTS)
        assert found == other


@both
def test_the_table_is_the_registry(page, text):
    found = {row[0].strip("`"): row[1:] for row in rows(text, 5)}
    assert sorted(found) == methods.registry.names()
    for name, (learns, models, paper, link) in found.items():
        entry = methods.registry.get(name)
        assert models
        assert learns == entry.summary if page == PAGES[0] else learns
        assert paper == (f"[{entry.paper.rsplit('/', 1)[1]}]({entry.paper})" if entry.paper else "")
        if link:
            (target,) = re.findall(r"\]\((.+)\)$", link)
            assert (
                f"`{name}`" in (page.parent / target).read_text(encoding="utf-8") or Path(target).stem == name
            )


@both
def test_every_option_is_in_a_table(page, text):
    stated = {name for row in rows(text, 3) for name in re.findall(r"`(\w+)`", row[0])}
    assert set(Distill.model_fields) - set(TrainOptions.model_fields) <= stated


@both
def test_the_recipes_are_valid(page, text):
    found = [files.parse_yaml(block, page.name) for block in blocks(text, "yaml")]
    found = [step for block in found for step in (block["steps"] if isinstance(block, dict) else block)]
    steps = [parse_step(step, place) for place, step in enumerate(found)]
    distilled = [options_of(step) for step in steps if isinstance(step, Distill)]
    assert len(distilled) == 3
    for student in re.findall(r"^\| (?:`(\{[^|]*\})`|null).*\|$", text.split("## ")[2], re.M):
        for one in filter(None, student.split("`, `")):
            Distill(student=files.parse_yaml(one, page.name))


@both
def test_links_lead_somewhere(page, text):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text.replace("](http", "](:")):
        lead = page.parent / target if target else page
        assert lead.is_file(), target
        titles = re.findall(r"^#+ (.*)$", lead.read_text(encoding="utf-8"), re.M)
        slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in slugs, (target, anchor)
