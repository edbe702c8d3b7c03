"""The pages of methods: examples run, recipes parse, options, defaults and papers are there, in both languages."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from pages import blocks

from lianzhi import files
from lianzhi.distill import losses, methods
from lianzhi.recipe import Distill, parse_step

DOCS = Path(__file__).resolve().parents[2] / "docs"
ON_LOGITS = ("kd", "dkd", "dist", "logit_loss")
ON_FEATURES = (
    *("fitnet", "attention_transfer", "nst", "similarity_preserving"),
    *("pkt", "rkd", "crd", "review_kd"),
)
OF_TEXTS = ("pkd", "minilm", "distilbert", "theseus", "theseus_plus", "layerwise")
LANGUAGES = {"en": DOCS / "distillation", "zh": DOCS / "zh" / "distillation"}

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="its models are of transformers"
)
names = [*ON_LOGITS, *ON_FEATURES, *OF_TEXTS]
runnable = [*ON_LOGITS, *ON_FEATURES, *(pytest.param(name, marks=needs_transformers) for name in OF_TEXTS)]


def each(of: list[str] | tuple[str, ...]):
    """Every page of these methods, in both languages."""
    return pytest.mark.parametrize(
        "page",
        [folder / f"{name}.md" for folder in LANGUAGES.values() for name in of],
        ids=[f"{language}-{name}" for language in LANGUAGES for name in of],
    )


def rows(page: Path) -> list[tuple[list[str], str]]:
    """Of tables whose rows begin with names in code: those names, and the cell beside them."""
    found = [line.split("|") for line in page.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    return [(re.findall(r"`(\w+)`", cells[1]), cells[2].strip()) for cells in found]


@pytest.mark.parametrize("name", runnable)
def test_the_examples_run_in_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    if name in OF_TEXTS:
        from tiny_corpus import sentences, write_tokenizer

        write_tokenizer(tmp_path / "models" / "my-bert")
        (tmp_path / "corpora").mkdir()
        (tmp_path / "corpora" / "some.txt").write_text("\n".join(sentences(120, 0)))
    page, values = LANGUAGES["en"] / f"{name}.md", {}
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found):
        exec(compile(block, f"{page.name}, example {number + 1}", "exec"), values)


@pytest.mark.parametrize("name", names)
def test_the_chinese_page_has_the_same_code(name):
    for kind in ("python", "yaml"):
        one, other = (
            [re.sub(r"\s*#.*", "", block) for block in blocks(folder / f"{name}.md", kind)]
            for folder in LANGUAGES.values()
        )
        assert one == other


@each(names)
def test_options_papers_and_recipes(page):
    text = page.read_text(encoding="utf-8")
    entry = methods.registry.get(page.stem)
    assert f"]({entry.paper})" in text or not entry.paper
    stated = {option for options, _ in rows(page) for option in options}
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
    assert (page.parent / other).resolve() in [folder / page.name for folder in LANGUAGES.values()]


def written(value: object) -> str:
    """A default as a table writes it."""
    if isinstance(value, float):
        return "1/12" if value == 1 / 12 else f"{value:g}"
    return f"`{value}`" if isinstance(value, str) else json.dumps(value)


@each([*ON_LOGITS, *ON_FEATURES])
def test_the_table_has_every_option_with_its_default(page):
    stated: dict[str, str] = {}
    for options, cell in rows(page):
        cells = cell.split(", ") if len(options) > 1 else [cell]
        stated |= dict(zip(options, cells, strict=True))
    defaults = methods.registry.get(page.stem).config().to_dict()
    assert stated == {option: written(value) for option, value in defaults.items()}


@each([name for name in (*ON_LOGITS, *ON_FEATURES) if name in losses.registry.names()])
def test_the_operator_alone_is_shown_with_what_it_gives(page):
    (call, *_) = [line for block in blocks(page) for line in block.splitlines() if "losses." in line]
    assert f"lz.distill.losses.{page.stem}(" in call
    assert f"](../distillation_losses.md#{page.stem})" in page.read_text(encoding="utf-8")
