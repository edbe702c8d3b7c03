"""A few streams are written and read at once: as one code after the other, and with the same refusals."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lianzhi.codebook import few_streams, huffman, lockstep, octets, sequence
from lianzhi.errors import ArtifactError


def one_by_one(data, sizes, count, lengths):
    """The symbols of the streams by the definition of a canonical code, bit by bit; None where they do not end as they should."""
    codes = {}
    for symbol, code in enumerate(huffman.codes(lengths).tolist()):
        if lengths[symbol]:
            codes[f"{code:0{lengths[symbol]}b}"] = symbol
    text = "".join(f"{octet:08b}" for octet in data) + "0" * 32
    ends = np.cumsum(sizes) * 8
    at = ends - 8 * np.asarray(sizes)
    found = []
    for number in range(count):
        stream = number % len(sizes)
        code = ""
        while code not in codes:
            if at[stream] >= len(text):
                return None
            code += text[at[stream]]
            at[stream] += 1
        found.append(codes[code])
    return found if all(-(-at // 8) * 8 == ends) else None


def outcome(data, sizes, count, lengths):
    try:
        return lockstep.decode(data, np.asarray(sizes), count, lengths).tolist()
    except ArtifactError:
        return None


whole_codes = st.lists(st.integers(0, 200), min_size=2, max_size=40).map(
    lambda counts: huffman.code_lengths(np.array(counts) + 1, 16)
)


@settings(deadline=None, max_examples=200)
@given(whole_codes, st.lists(st.binary(max_size=12), min_size=1, max_size=40), st.integers(0, 400))
def test_any_bytes_give_what_one_code_after_the_other_gives(lengths, streams, count):
    """Most of them end elsewhere: then both refuse."""
    data, sizes = b"".join(streams), [len(stream) for stream in streams]
    assert outcome(data, sizes, count, lengths) == one_by_one(data, sizes, count, lengths)


@settings(deadline=None, max_examples=100)
@given(whole_codes, st.integers(1, 130), st.integers(0, 2000), st.integers(0, 9), st.data())
def test_written_streams_read_back_and_cut_ones_are_refused(lengths, streams, count, seed, drawn):
    symbols = np.random.default_rng(seed).integers(0, len(lengths), count).astype(np.uint8)
    data, sizes = lockstep.encode(symbols, lengths, streams)
    assert data == lockstep._in_steps(symbols, lengths, sizes)
    assert outcome(data, sizes, count, lengths) == symbols.tolist()
    if count:
        wrong = count + drawn.draw(st.integers(1, 50)) * 8
        assert outcome(data, sizes, wrong, lengths) == one_by_one(data, sizes, wrong, lengths)


@pytest.mark.parametrize(
    "streams",
    [few_streams.GROUP - 1, few_streams.GROUP, few_streams.GROUP + 1, few_streams.FEW, few_streams.FEW + 1],
)
def test_all_ways_read_the_same(monkeypatch, streams):
    symbols = np.random.default_rng(0).geometric(0.2, 20_000).clip(max=90).astype(np.uint8)
    lengths = huffman.best_lengths(np.bincount(symbols, minlength=91))
    data, sizes = lockstep.encode(symbols, lengths, streams)
    for few in (0, few_streams.FEW, 1000):
        monkeypatch.setattr(few_streams, "FEW", few)
        assert np.array_equal(lockstep.decode(data, sizes, len(symbols), lengths), symbols)


def claimed(log, filler):
    """2^log streams of a byte each, in a code of two symbols of a bit, and what follows after them."""
    table = bytes([1, 1, 0b11000000])
    return octets.Octets(bytes([sequence.HUFFMAN, log]) + table + bytes([1, 0]) + bytes((1 << log) + filler))


def test_symbols_that_cannot_be_in_the_streams_are_refused_before_memory_is_taken(monkeypatch):
    """However much follows after the streams: where each symbol begins would be noted first."""
    monkeypatch.setattr(lockstep, "decode", None)
    with pytest.raises(ArtifactError, match="16,000,000 symbols cannot be in 1 bytes of streams"):
        sequence.read(claimed(0, 2_000_000), 16_000_000, 2)


def test_more_streams_than_are_written_are_refused():
    with pytest.raises(ArtifactError, match="more streams than are written"):
        sequence.read(claimed(7, 0), 1000, 2)


def test_few_streams_take_a_fraction_of_the_time_of_steps(monkeypatch):
    """Three times as fast is far from what it is on an idle machine: other work may run beside the tests."""
    symbols = np.random.default_rng(0).geometric(0.2, 8_000).clip(max=90).astype(np.uint8)
    lengths = huffman.best_lengths(np.bincount(symbols, minlength=91))
    data, sizes = lockstep.encode(symbols, lengths, 8)

    def fastest(work):
        found = []
        for _ in range(5):
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
        return min(found)

    def write():
        lockstep.encode(symbols, lengths, 8)

    def read():
        lockstep.decode(data, sizes, len(symbols), lengths)

    at_once = [fastest(write), fastest(read)]
    monkeypatch.setattr(few_streams, "FEW", 0)
    in_steps = [fastest(write), fastest(read)]
    assert 3 * at_once[0] < in_steps[0]
    assert 3 * at_once[1] < in_steps[1]
