import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lianzhi.codebook import huffman, lockstep, octets, sequence
from lianzhi.errors import ArtifactError


def drawn(count, alphabet, power, seed=0):
    """Symbols whose probabilities fall with a power of their rank."""
    weights = np.arange(1, alphabet + 1) ** -float(power)
    return np.random.default_rng(seed).choice(alphabet, count, p=weights / weights.sum())


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(1, 700), st.floats(0, 3), st.integers(0, 5))
def test_read_gives_what_write_took_and_takes_exactly_its_bytes(count, alphabet, power, seed):
    symbols = drawn(count, alphabet, power, seed).astype(np.uint16)
    source = octets.Octets(sequence.write(symbols, alphabet).data + b"rest")
    assert np.array_equal(sequence.read(source, count, alphabet), symbols)
    assert source.take(4) == b"rest"


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 6), st.integers(0, 5))
def test_any_number_of_streams_reads_back(count, log, seed):
    symbols = drawn(count, 9, 1, seed).astype(np.uint8)
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=9) + 1)
    data, sizes = lockstep.encode(symbols, lengths, 1 << log)
    assert np.array_equal(lockstep.decode(data, sizes, count, lengths), symbols)


def test_threads_read_the_same(monkeypatch):
    symbols = drawn(100_000, 40, 1).astype(np.uint8)
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=40))
    data, sizes = lockstep.encode(symbols, lengths, 2048)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert np.array_equal(lockstep.decode(data, sizes, len(symbols), lengths), symbols)


def test_codes_of_sixteen_bits():
    counts = np.array([1, 1])
    while len(counts) < 25:
        counts = np.append(counts, counts[-1] + counts[-2])
    lengths = huffman.code_lengths(counts)
    assert lengths.max() == 16
    symbols = np.random.default_rng(0).permutation(np.repeat(np.arange(25), counts)).astype(np.uint8)
    data, sizes = lockstep.encode(symbols, lengths, 64)
    assert np.array_equal(lockstep.decode(data, sizes, len(symbols), lengths), symbols)


@pytest.mark.parametrize("alphabet", [16, 32, 256])
def test_all_bytes_are_within_three_percent_of_the_entropy(alphabet):
    values = np.random.default_rng(0).normal(size=400_000)
    symbols = np.clip(np.round(values * alphabet / 8 + alphabet / 2), 0, alphabet - 1).astype(np.uint8)
    coded = sequence.write(symbols, alphabet)
    assert coded.entropy <= 8 * len(coded.data) <= 1.03 * coded.entropy


@pytest.mark.parametrize(("alphabet", "spread"), [(21, 0.9), (33, 1.5), (64, 1.0)])
def test_a_frequent_one_of_some_more_is_coded_in_pairs(alphabet, spread):
    """As zero is among the values of a rate: its code of a whole bit, or two, is too long."""
    places = np.arange(alphabet) - alphabet // 2
    shares = np.exp(-0.5 * (places / spread) ** 2)
    symbols = np.random.default_rng(0).choice(alphabet, 300_001, p=shares / shares.sum()).astype(np.uint8)
    coded = sequence.write(symbols, alphabet)
    assert coded.data[0] == sequence.PAIRS
    assert coded.entropy < 8 * len(coded.data) <= 1.045 * coded.entropy  # with the table of its codes
    assert len(coded.data) < 0.996 * len(sequence._alone(symbols, alphabet).data)
    assert np.array_equal(sequence.read(octets.Octets(coded.data), len(symbols), alphabet), symbols)


@pytest.mark.parametrize("shares", [(0.45, 0.1, 0.45), (0.9, 0.1), (0.4, 0.3, 0.15, 0.1, 0.03, 0.01, 0.01)])
@pytest.mark.parametrize("count", [100_000, 100_001, 100_003])
def test_few_symbols_are_coded_in_pairs(shares, count):
    """A code of whole bits would be up to a bit above the entropy."""
    symbols = np.random.default_rng(0).choice(len(shares), count, p=shares).astype(np.uint8)
    coded = sequence.write(symbols, len(shares))
    assert coded.data[0] == sequence.PAIRS
    assert 8 * len(coded.data) <= 1.05 * coded.entropy
    alone = sequence._alone(symbols, len(shares))
    assert len(coded.data) < len(alone.data)
    assert np.array_equal(sequence.read(octets.Octets(coded.data), count, len(shares)), symbols)


@pytest.mark.parametrize("alphabet", [16, 20, 21])
@pytest.mark.parametrize("over", [0, 1, 2])
def test_two_frequent_ones_are_coded_in_runs(alphabet, over):
    """As the two values next to zero are among those that are not zero: pairs take whole bits, too."""
    shares = 0.18 ** (np.arange(alphabet) // 2)
    symbols = (
        np.random.default_rng(0).choice(alphabet, 600_000 + over, p=shares / shares.sum()).astype(np.uint8)
    )
    coded = sequence.write(symbols, alphabet)
    assert tuple(coded.data[:2]) == (sequence.RUNS, 3)
    assert coded.entropy < 8 * len(coded.data) < 1.02 * coded.entropy
    assert np.array_equal(sequence.read(octets.Octets(coded.data), len(symbols), alphabet), symbols)


def test_runs_that_are_damaged_are_refused_or_read():
    shares = 0.18 ** (np.arange(16) // 2)
    symbols = np.random.default_rng(0).choice(16, 600_000, p=shares / shares.sum()).astype(np.uint8)
    data = bytearray(sequence.write(symbols, 16).data)
    assert data[0] == sequence.RUNS
    draw = np.random.default_rng(1)
    refused = 0
    for case in range(200):
        damaged = bytearray(data)
        for place in draw.integers(
            0, 40 if case % 2 else len(data), 3
        ):  # the head and its table, or anywhere
            damaged[place] = draw.integers(256)
        try:
            found = sequence.read(octets.Octets(bytes(damaged)), 600_000, 16)
            assert len(found) == 600_000
            assert found.max() < 16
        except ArtifactError:
            refused += 1
    assert 50 < refused < 200


def test_one_stream_for_all_is_refused():
    """A step a symbol would take seconds."""
    data = bytes([sequence.HUFFMAN, 0, 1, 1, 0xC0]) + octets.whole(100_000) + b"\0" + bytes(100_000)
    with pytest.raises(ArtifactError, match="fewer streams"):
        sequence.read(octets.Octets(data), 800_000, 2)


def test_runs_that_are_none_are_refused():
    one = bytes([sequence.RUNS, 3, sequence.SINGLE, 5])  # 0, 1, 2 to the base 3
    assert sequence.read(octets.Octets(one), 6, 3).tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ArtifactError, match="follows after the last"):
        sequence.read(octets.Octets(one), 5, 3)
    for length in (0, 1, 2, 9, 255):
        with pytest.raises(ArtifactError, match=f"runs of {length}"):
            sequence.read(octets.Octets(bytes([sequence.RUNS, length, sequence.SINGLE, 5])), 6, 3)
    for data, alphabet in ((one, 1), (one, 22), (bytes([sequence.RUNS, 3]) * 50, 3)):
        with pytest.raises(ArtifactError):
            sequence.read(octets.Octets(data), 6, alphabet)


def test_a_table_is_a_sequence_where_that_is_shorter():
    symbols = drawn(200_000, 700, 2).astype(np.uint16)
    data = sequence.write(symbols, 700).data
    assert data[0] == sequence.HUFFMAN
    assert data[3] == 0
    source = octets.Octets(data)
    assert np.array_equal(sequence.read(source, 200_000, 700), symbols)
    assert not source.left
    for form in (sequence.PAIRS, sequence.RUNS, 9):  # a table is none of these
        with pytest.raises(ArtifactError):
            sequence.read(octets.Octets(data[:4] + bytes([form]) + data[5:]), 200_000, 700)
    inner = data[:4] + bytes([sequence.HUFFMAN, 0, 1, 0]) + data[8:]  # nor has it such a table
    with pytest.raises(ArtifactError, match="code lengths are impossible"):
        sequence.read(octets.Octets(inner), 200_000, 700)


def test_pairs_that_are_none_are_refused():
    symbols = drawn(1001, 3, 2).astype(np.uint8)
    data = sequence.write(symbols, 3).data
    assert data[0] == sequence.PAIRS
    for count, alphabet in ((996, 3), (1100, 3), (1001, 1), (1001, 65), (1 << 40, 3)):
        with pytest.raises(ArtifactError):
            sequence.read(octets.Octets(data), count, alphabet)
    with pytest.raises(ArtifactError):
        sequence.read(octets.Octets(bytes([sequence.PAIRS]) * 100), 1001, 2)
    one = bytes([sequence.PAIRS, sequence.SINGLE, 5])  # the pair (1, 2), five times
    assert sequence.read(octets.Octets(one), 4, 3).tolist() == [1, 2, 1, 2]
    with pytest.raises(ArtifactError, match="follows after the last"):
        sequence.read(octets.Octets(one), 3, 3)


def test_wrong_streams_are_refused():
    symbols = drawn(5000, 20, 1).astype(np.uint8)
    data = bytearray(sequence.write(symbols, 20).data)
    for count in (4990, 5010, 50_000_000):
        with pytest.raises(ArtifactError):
            sequence.read(octets.Octets(bytes(data)), count, 20)
    refused = 0
    for at in range(200):
        changed = bytearray(data)
        changed[at * 7 % len(data)] ^= 1 << at % 8
        try:
            sequence.read(octets.Octets(bytes(changed)), 5000, 20)
        except ArtifactError:
            refused += 1
    assert refused > 20  # others decode to other symbols, which the checksum of the section tells


@given(st.integers(0, 2**63 - 1))
def test_whole_numbers(value):
    assert octets.Octets(octets.whole(value)).whole() == value


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x01"])
def test_damaged_whole_numbers(data):
    with pytest.raises(ArtifactError):
        octets.Octets(data).whole()
