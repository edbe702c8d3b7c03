"""The how-to pages: their files, examples and commands run in the order in which they stand, in both languages the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lianzhi import files, recipe
from lianzhi.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = ("own-model", "own-data", "target", "extend")
PAGES = [folder / "how-to" / f"{name}.md" for folder in (DOCS, DOCS / "zh") for name in NAMES]
# what takes minutes, and what stands for it here
QUICK = ["--set", "steps.1.epochs=1", "--set", "target=onnxruntime", "--quiet"]
ONLY_SAID = ("lianzhi compress recipe.yaml --set target=tensorrt",)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and content of every block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.M | re.S)


def carry_out(page: Path, monkeypatch, names: dict) -> list[str]:
    """Run Python and commands in order; give the commands that were run."""
    ran = []
    for number, (kind, content) in enumerate(blocks(page)):
        if kind == "python":
            exec(compile(content, f"{page.name}, block {number + 1}", "exec"), names)
        elif kind == "":
            for line in content.splitlines():
                if not line.startswith("lianzhi ") or line.startswith(ONLY_SAID):
                    continue
                arguments = shlex.split(line)[1:]
                small = QUICK if arguments[0] == "compress" and "--dry-run" not in arguments else []
                assert main([*arguments, *small]) == 0, line
                ran.append(line)
    return ran


@pytest.fixture
def here(tmp_path, monkeypatch):
    from places import write_photos, write_reviews

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / ".cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_photos(tmp_path / "photos", side=24)
    write_reviews(tmp_path / "reviews.csv", header="review,stars")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_and_a_target(here, monkeypatch, capsys):
    """The second page takes the artifact of the first."""
    model = DOCS / "how-to" / "own-model.md"
    code = next(content for kind, content in blocks(model) if kind == "python")
    (here / "net.py").write_text(code)
    names: dict = {}
    assert len(carry_out(model, monkeypatch, names)) == 5
    assert "out/net" in capsys.readouterr().out
    assert names["result"].report.rows[-1]["step"] == "quantize"
    assert len(carry_out(DOCS / "how-to" / "target.md", monkeypatch, names)) == 3
    assert names["logits"].shape == (1, 3)
    assert "(1, 3)" in capsys.readouterr().out


def test_data(here, monkeypatch, capsys):
    page = DOCS / "how-to" / "own-data.md"
    names: dict = {}
    assert len(carry_out(page, monkeypatch, names)) == 2
    (shown,) = re.findall(r"# (Task\('image_folder'.*)$", text_of(page), re.M)
    assert shown in capsys.readouterr().out
    assert names["task"].size("validation") == 16


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_show_the_same(name):
    one, other = (
        [
            (kind, re.sub(r"\s*#.*", "", content))
            for kind, content in blocks(folder / "how-to" / f"{name}.md")
            if kind
        ]
        for folder in (DOCS, DOCS / "zh")
    )
    assert one == other
    commands = [
        re.findall(r"^lianzhi .*", text_of(folder / "how-to" / f"{name}.md"), re.M)
        for folder in (DOCS, DOCS / "zh")
    ]
    assert commands[0] == commands[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parents[1].name}-{page.stem}")
def test_recipes_are_valid(page):
    for kind, content in blocks(page):
        if kind == "yaml":
            data = files.parse_yaml(content, page.name)
            recipe.parse({"steps": ["quantize"], **data})


@pytest.mark.parametrize("language", ["", "zh/"])
def test_the_readme_names_every_page(language):
    readme = (DOCS.parent / ("README.zh-CN.md" if language else "README.md")).read_text(encoding="utf-8")
    for name in NAMES:
        assert f"docs/{language}how-to/{name}.md" in readme
