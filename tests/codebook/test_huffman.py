import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lianzhi.codebook import huffman
from lianzhi.errors import ArtifactError

COUNTS = st.lists(st.integers(0, 5000), min_size=2, max_size=300).filter(
    lambda counts: sum(c > 0 for c in counts) > 1
)


def unlimited(counts):
    """The cost of Huffman's own code: the sum of all merged weights."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


def brute(counts, limit):
    """The cheapest lengths that satisfy Kraft, of all that there are."""
    return min(
        sum(c * length for c, length in zip(counts, lengths, strict=True))
        for lengths in itertools.product(range(1, limit + 1), repeat=len(counts))
        if sum(2.0**-length for length in lengths) <= 1
    )


@given(COUNTS)
def test_lengths_are_a_whole_prefix_code_within_a_bit_of_the_entropy(counts):
    counts = np.array(counts)
    lengths = huffman.code_lengths(counts)
    huffman.check_lengths(lengths)
    assert ((lengths > 0) == (counts > 0)).all()
    cost = int((lengths * counts).sum())
    assert huffman.entropy(counts) - 1e-6 <= cost < huffman.entropy(counts) + counts.sum()


@given(COUNTS)
def test_without_the_limit_in_the_way_the_cost_is_huffmans(counts):
    lengths = huffman.code_lengths(np.array(counts), 40)
    assert int((lengths * np.array(counts)).sum()) == unlimited(counts)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=6), st.integers(3, 4))
def test_with_a_limit_no_lengths_are_cheaper(counts, limit):
    lengths = huffman.code_lengths(np.array(counts), limit)
    assert int(lengths.max()) <= limit
    assert int((lengths * np.array(counts)).sum()) == brute(counts, limit)


def test_fibonacci_counts_keep_to_sixteen_bits():
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    assert int(huffman.code_lengths(np.array(counts)).max()) == 16


def test_as_many_symbols_as_the_limit_can_tell_apart():
    assert set(huffman.code_lengths(np.arange(1, 65537)).tolist()) == {16}
    with pytest.raises(ArtifactError, match="at most 16 bits"):
        huffman.code_lengths(np.ones(65537, np.int64))


@given(COUNTS)
def test_codes_are_prefix_free_and_decode_to_their_symbols(counts):
    lengths = huffman.best_lengths(np.array(counts))
    codes = huffman.codes(lengths)
    symbols, bits, longest = huffman.decode_table(lengths)
    texts = {
        s: f"{int(code):0{n}b}" for s, (code, n) in enumerate(zip(codes, lengths.tolist(), strict=True)) if n
    }
    ordered = sorted(texts.values())
    assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
    for symbol, text in texts.items():
        index = int(text.ljust(longest, "1"), 2)
        assert symbols[index] == symbol
        assert bits[index] == len(text)


@pytest.mark.parametrize("lengths", [[], [1], [2, 2, 2], [1, 1, 1], [17, 1], [1, 2, 3]])
def test_lengths_that_are_no_whole_code_are_refused(lengths):
    with pytest.raises(ArtifactError, match="prefix code"):
        huffman.check_lengths(np.array(lengths, np.uint8))
