"""The page on architecture: every room of the package is on it, and every file that it names is there; in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lianzhi.recipe import STEPS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "src" / "lianzhi"
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "docs" / "zh" / "architecture.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_room_has_its_row(text):
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)/`", rows))
    rooms = {folder.name for folder in ROOMS.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms <= named
    inside = {file.parent.name for file in ROOMS.rglob("__init__.py")}
    assert named - rooms <= inside


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_file_that_is_named_is_there(text):
    found = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text))
    known = [file.relative_to(ROOMS).as_posix() for file in ROOMS.rglob("*.py")]
    missing = [name for name in found if not any(f"/{file}".endswith(f"/{name}") for file in known)]
    assert len(found) > 30
    assert not missing


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_step_is_in_the_picture(text):
    picture = text.split("```")[1]
    assert all(name in picture for name in STEPS)


def test_both_languages_name_the_same_files():
    one, other = (set(re.findall(r"`([\w/]+(?:\.py|/))`", text)) for text in TEXTS)
    assert one == other
