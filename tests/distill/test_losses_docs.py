"""The pages on distillation losses: their examples run, and every loss has a section with its signature and paper."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi.distill import losses

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "distillation_losses.md", DOCS / "zh" / "distillation_losses.md"]


def sections(page: Path) -> dict[str, str]:
    """The text of each loss, by name."""
    parts = re.split(r"^#{2,3} (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {
        title.strip("`"): text
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
        if title.startswith("`")
    }


def signature(name: str) -> str:
    """The call as a page writes it: names and defaults, without types."""
    found = inspect.signature(losses.registry.get(name).build)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    return name + str(inspect.Signature(bare))


def test_the_examples_run_in_order():
    found, names = blocks(PAGES[0]), {}
    assert len(found) > len(losses.registry.names())
    for number, block in enumerate(found):
        exec(compile(block, f"{PAGES[0].name}, example {number + 1}", "exec"), names)


def test_the_chinese_page_has_the_same_examples():
    def code(page):
        return [re.sub(r"\s*#.*", "", block) for block in blocks(page)]

    assert code(PAGES[1]) == code(PAGES[0])


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_every_loss_has_its_section(page):
    found = sections(page)
    assert sorted(found) == losses.registry.names()
    for name, text in found.items():
        (stated,) = blocks(text, "text")
        call = " ".join(stated.split("\n\n")[0].split())
        assert call == signature(name)
        assert f"]({losses.registry.get(name).paper})" in text, name
        assert f"losses.{name}(" in "".join(blocks(text)), name
