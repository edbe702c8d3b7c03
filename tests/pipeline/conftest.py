"""The task that most of these tests run on; a file that needs another has one of its own."""

import pytest

import lianzhi as lz


@pytest.fixture(scope="module")
def task():
    return lz.task("synthetic", samples=256, classes=4, shape=(3, 8, 8))
