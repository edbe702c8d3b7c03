"""A cache of the tests' own, and a tiny BERT with its tokenizer and data, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_recipes import write_needs
from tiny_text import write_model, write_sst2

pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def glue(tmp_path_factory) -> Path:
    """A folder like GLUE's, with SST-2 in it."""
    folder = tmp_path_factory.mktemp("glue")
    write_sst2(folder / "SST-2")
    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    """The folder of a BERT without a head, as sentence-transformers have them."""
    return write_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def needed(tmp_path_factory) -> Path:
    """What the recipes of GLUE's small tasks begin with, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))
        return write_needs(tmp_path_factory.mktemp("needs"))


@pytest.fixture
def needs(needed, monkeypatch) -> Path:
    """The same, in the places where the recipes look for it."""
    monkeypatch.setenv("DATA", str(needed))
    monkeypatch.chdir(needed)
    return needed
