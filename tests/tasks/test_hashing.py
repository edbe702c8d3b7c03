"""The counter-based generator: uniform, independent of company, different for each purpose."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lianzhi.tasks import hashing

KEYS = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 1000), st.sampled_from(["order", "flip"]))


def test_known_values():
    """SplitMix64 with state 0, from its authors' reference output: the stream must never change."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hashing.bits(np.uint64(0), np.arange(3)).tolist() == expected


def test_uniform_moments_and_correlation():
    draws = hashing.uniform(hashing.key(3, 1, "top"), np.arange(200_000))
    assert abs(draws.mean() - 0.5) < 0.003
    assert abs(draws.var() - 1 / 12) < 0.001
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01
    other = hashing.uniform(hashing.key(3, 2, "top"), np.arange(200_000))
    assert abs(np.corrcoef(draws, other)[0, 1]) < 0.01


def test_integers_are_even():
    counts = np.bincount(hashing.integers(hashing.key(0), np.arange(90_000), 9), minlength=9)
    assert len(counts) == 9
    assert (abs(counts - 10_000) < 500).all()


@given(KEYS, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_draw_does_not_depend_on_its_company(parts, counters):
    together = hashing.bits(hashing.key(*parts), np.array(counters))
    alone = [hashing.bits(hashing.key(*parts), np.array([counter]))[0] for counter in counters]
    assert together.tolist() == alone


@given(KEYS, st.integers(0, 300))
def test_permutation_is_one(parts, count):
    assert sorted(hashing.permutation(hashing.key(*parts), count).tolist()) == list(range(count))


def test_permutations_differ_by_seed_and_epoch():
    orders = {
        tuple(hashing.permutation(hashing.key(seed, epoch, "order"), 50))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9
