"""An array of the cache that is empty or cut off is made again."""

from __future__ import annotations

import numpy as np
import pytest

from lianzhi.tasks import cache


@pytest.mark.parametrize("left", [0, 1, 5, 100, -8])
def test_a_damaged_array_is_made_again(tmp_path, monkeypatch, left):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    made: list[int] = []

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(40, dtype=np.int64)

    assert cache.array("numbers", make).sum() == 780
    (file,) = (tmp_path / "arrays").iterdir()
    file.write_bytes(file.read_bytes()[:left])
    assert cache.array("numbers", make).tolist() == list(range(40))
    assert cache.array("numbers", make).sum() == 780
    assert len(made) == 2
