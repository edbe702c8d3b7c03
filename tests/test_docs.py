"""The documentation: links lead somewhere, both languages have the same pages, and the public API is what its page says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

import lianzhi as lz
from lianzhi.distill import losses

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*.md")])
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROMISED = re.compile(r"^\| `lz\.([\w.]+)` \|", re.MULTILINE)
# the design's own promises, which the page may not take back
DESIGNED = {
    *("model", "task", "compress", "load", "save", "Result"),
    *("prune.plan", "prune.Plan"),
    *(
        "quantize.quantize",
        "quantize.QuantizedModel",
        "quantize.quantize_onnx",
        "quantize.lint",
        "quantize.Finding",
        "quantize.read_tensorrt_cache",
        "quantize.write_tensorrt_cache",
    ),
    *("codebook.pack", "codebook.PackReport", "codebook.unpack"),
    *("distill.losses.kd", "measure.latency", "measure.Latency", "measure.macs", "measure.parameters"),
    *("deploy.load", "deploy.oneflow.read", "deploy.oneflow.write"),
}


def website(name: str):
    spec = importlib.util.spec_from_file_location(f"website_{name}", ROOT / "website" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """The places of a page, by the rule of code hosts: a heading's words in small letters, with hyphens."""
    text = FENCED.sub("", page.read_text("utf-8"))
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} is not there"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{link}: the page has no such heading"


def test_both_languages_have_the_same_pages():
    chinese = {page.relative_to(DOCS / "zh") for page in (DOCS / "zh").rglob("*.md")}
    english = {page.relative_to(DOCS) for page in DOCS.rglob("*.md")} - {
        Path("zh") / page for page in chinese
    }
    assert english == chinese


def test_every_page_is_in_the_menu():
    text = (ROOT / "website" / "mkdocs.yml").read_text("utf-8")
    menu = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    named = [
        page for item in menu for page in ([item] if isinstance(item, str) else next(iter(item.values())))
    ]
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if "zh" not in page.parts}
    assert sorted(named) == sorted(pages | {"index.md", "changelog.md"})


def promised(page: str) -> list[str]:
    return PROMISED.findall((DOCS / page).read_text("utf-8"))


def test_every_promised_name_is_there_and_explained():
    for name in promised("api.md"):
        value = lz
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value), name
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_page_promises_what_the_package_offers():
    names = promised("api.md")
    offered = {name for name in lz.__all__ if not inspect.ismodule(getattr(lz, name)) and name[0] != "_"}
    assert {name for name in names if "." not in name} == offered
    assert {name.split(".")[-1] for name in names if name.startswith("distill.losses.")} == set(
        losses.registry.names()
    )
    assert set(names) >= DESIGNED
    assert len(names) == len(set(names))
    assert promised("zh/api.md") == names


def test_the_reference_has_every_name_of_every_room():
    reference = website("reference")
    rooms = {folder.parent.name for folder in (ROOT / "src" / "lianzhi").glob("*/__init__.py")}
    assert rooms - set(reference.ROOMS) == {"cli", "files", "jobs"}  # no interface of Python's
    assert "::: lianzhi.prune.sensitivity.sensitivity\n" in reference.text("prune")
    for room in reference.ROOMS:
        for path in re.findall(r"^::: ([\w.]+)$", reference.text(room), re.MULTILINE):
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), path


def test_the_picture_of_the_rooms_is_of_the_table_and_the_code_as_they_are():
    rooms = website("rooms")
    for name, page in rooms.PICTURES.items():
        assert (DOCS / "img" / name).read_text("utf-8") == rooms.picture(page), "run: python website/rooms.py"
        rows = rooms.levels(rooms.cards(page))
        assert [sorted(room for card in row for room in card.rooms) for row in rows[:3]] == [
            ["cli"],
            ["jobs"],
            ["pipeline"],
        ]
        for at, row in enumerate(rows):
            below = set().union(*(card.rooms for lower in rows[at + 1 :] for card in lower))
            for card in row:
                used = set().union(*(rooms.imports(room) for room in card.rooms)) - card.rooms
                assert used <= below, (
                    f"{card.names} imports {sorted(used - below)}, which does not stand below it"
                )


@pytest.mark.parametrize("name", ["reference", "fences"])
def test_examples_of_the_site_builder(name):
    found = doctest.testmod(website(name))
    assert found.attempted
    assert not found.failed


def test_the_site_check_finds_what_is_wrong(tmp_path):
    check = website("check")
    (tmp_path / "a.html").write_text('<h1 id="x"></h1><a href="a.html#x"></a><img src="a.html">')
    assert check.faults(tmp_path) == []
    (tmp_path / "b.html").write_text(
        '<a href="gone.html"></a><a href="a.html#y"></a><script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/x.css">'
    )
    faults = check.faults(tmp_path)
    assert len(faults) == 4
    assert any("gone.html is not there" in fault for fault in faults)
    assert any("a.html#y has no such place" in fault for fault in faults)
