"""The table of upper halves against NumPy's and PyTorch's searches, for all bits that a float32 can have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lianzhi.codebook import places

finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
EDGES = [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, -1.1754944e-38, 1.0, -1.0, 3.4e38, -3.4e38, np.inf, -np.inf]


def around(bounds: np.ndarray) -> torch.Tensor:
    """Enough numbers for the tables: the bounds, their neighbours, every upper half twice, the ends of the range."""
    halves = (np.arange(2**16, dtype=np.uint32) << 16)[:, None] | np.array([0, 0x9E37], np.uint32)
    spread = halves.view(np.float32).ravel()
    with np.errstate(over="ignore"):  # the neighbour of the greatest number is infinity
        near = [np.nextafter(bounds, np.float32(end)) for end in (-np.inf, np.inf)]
    found = np.concatenate([bounds, *near, spread[~np.isnan(spread)], np.array(EDGES, np.float32)])
    assert len(found) >= places.FEW
    return torch.from_numpy(found)


@settings(max_examples=40, deadline=None)
@example(np.array([-np.finfo(np.float32).max, np.finfo(np.float32).max], np.float32))
@given(arrays(np.float32, st.integers(0, 40), elements=finite))
def test_every_number_lies_where_a_search_finds_it(bounds):
    bounds = np.sort(bounds)
    values = around(bounds)
    found = places.place(values, torch.from_numpy(bounds))
    assert found.dtype == torch.int32
    assert np.array_equal(found.numpy(), np.searchsorted(bounds, values.numpy(), side="right"))


def test_bounds_that_share_an_upper_half():
    for many in range(1, places.MOST + 3):
        bounds = torch.arange(many) * 2.0**-20 + 1
        assert (places._tables(bounds) is None) == (many > places.MOST)
        values = around(bounds.numpy())
        assert torch.equal(places.place(values, bounds).long(), torch.bucketize(values, bounds, right=True))


@pytest.mark.parametrize("channels", [4, 64])
def test_shapes_and_order_in_memory(channels):
    values = torch.randn(8, channels, 16, 16).to(memory_format=torch.channels_last)
    bounds = torch.tensor([-1.0, 0.0, 0.5])
    found = places.place(values, bounds)
    assert found.shape == values.shape
    assert torch.equal(found.long(), torch.bucketize(values.contiguous(), bounds, right=True))
