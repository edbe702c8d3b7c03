"""The pages for those who come from OneFlow: names that they promise are there, and both languages promise the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lianzhi import distill, models, recipe, tasks
from lianzhi.prune.criteria import registry as criteria

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "oneflow.md", ROOT / "docs" / "zh" / "oneflow.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
OPERATORS = [
    "bn",
    "conv_all",
    "conv_avg",
    "conv_max",
    "conv_threshold",
    "conv_similarity",
    "bn_similarity",
    "random",
]
FLAGS = [
    "--kd_alpha",
    "--kd_beta",
    "--layer_list",
    "--replace_prob",
    "--use_int8_online",
    "--use_int8_offline",
    "--percent",
    "--do_train",
    "--num_hidden_layers",
    "--eval_batch_size_per_device",
]


def codes(text: str) -> set[str]:
    """What stands between backticks, in one line, and holds no place for a name of one's own."""
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return {
        code
        for code in re.findall(r"`([^`\n]+)`", plain)
        if code.isascii() and not re.search("DIR|FOLDER|FILE", code)
    }


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_operator_and_the_main_flags_are_there(text):
    assert all(name in text for name in OPERATORS)
    assert all(flag in text for flag in FLAGS)


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_names_that_are_promised_exist(text):
    assert set(re.findall(r"criterion: (\w+)", text)) <= set(criteria.names())
    assert set(re.findall(r"method: (\w+)", text)) <= set(distill.methods.registry.names())
    assert set(re.findall(r"task: +\{name: (\w+)", text)) <= set(tasks.registry.names())
    assert set(re.findall(r"model: \{name: (\w+)", text)) <= set(models.registry.names())
    for name in re.findall(r"recipes/[\w-]+\.yaml|benchmarks/\w+\.py", text):
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_its_recipes_are_recipes(text, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    import yaml

    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) == 3
    for block in blocks:
        recipe.parse({"task": {"name": "imagenet"}, "steps": ["train"], **block})


@pytest.mark.parametrize("page", PAGES, ids=["en", "zh"])
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    heads = {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
        assert not target or (page.parent / target).is_file()
        assert target or anchor in heads


def test_both_languages_have_the_same_names():
    one, other = (codes(text) for text in TEXTS)
    assert {code for code in one ^ other if not code.startswith("lianzhi")} == set()
    assert len(one & other) > 150
