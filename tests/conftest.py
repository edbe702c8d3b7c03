"""Shared fixtures: the real data folder, and determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def find_data() -> Path | None:
    """The real data: LIANZHI_DATA, else the folder shared/data beside the checkout."""
    for candidate in (os.environ.get("LIANZHI_DATA"), ROOT.parent / "shared" / "data"):
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is listed as not run where there is none."""
    folder = find_data()
    if folder is None:
        if os.environ.get("LIANZHI_REQUIRE_DATA"):
            pytest.fail("real data is required: set LIANZHI_DATA to its folder")
        pytest.skip("no real data: set LIANZHI_DATA to its folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_peak_memory() -> Iterator[None]:
    """Runs of the tests leave out the peak memory, which takes two fresh processes each; its own tests put it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lianzhi.pipeline.memory.with_memory", lambda run, state, rows, original: rows)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
