"""The Python of the real OneFlow, which `make test-oneflow` names; a cache of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from under_oneflow import OneFlow

collect_ignore_glob = ["scripts/*"]  # run by OneFlow's Python


@pytest.fixture(scope="session")
def oneflow() -> OneFlow:
    python = os.environ.get("LIANZHI_ONEFLOW")
    if not python:
        pytest.skip("the real OneFlow is not here: make test-oneflow sets it up and runs these tests")
    return OneFlow(Path(python))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path_factory.mktemp("cache")))
