"""The sample report, as a dict to change and as a `Report`; headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import browser
import pytest
import sample

from lianzhi.report import Report


@pytest.fixture
def content() -> dict[str, Any]:
    """The sample as a dict, to change."""
    return sample.sample()


@pytest.fixture
def report(content: dict[str, Any]) -> Report:
    """The sample as a report."""
    return Report.from_json(content)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A running chromedriver; the tests are listed as not run where there is none."""
    if browser.CHROMIUM is None or browser.DRIVER is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    with browser.driver() as started:
        yield started
