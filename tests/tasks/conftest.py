"""A cache folder of the tests' own."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch, request):
    """A fresh cache for each test; one for all tests on real data, which are decoded once."""
    if request.node.get_closest_marker("data") is None:
        cache = tmp_path_factory.mktemp("cache")
    else:
        cache = tmp_path_factory.getbasetemp() / "cache-of-real-data"
    monkeypatch.setenv("LIANZHI_CACHE", str(cache))
