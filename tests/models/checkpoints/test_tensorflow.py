"""TensorFlow checkpoints: what the real TensorFlow wrote is read bit for bit; what is damaged or made to harm is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sorted_tables as tables
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lianzhi.errors import ArtifactError
from lianzhi.models.checkpoints import sstable
from lianzhi.models.checkpoints.crc32c import crc32c, unmasked
from lianzhi.models.checkpoints.tensorflow import read_tensorflow, read_variables

REAL = Path(__file__).parent / "data" / "tensorflow"
EXPECTED = np.load(REAL / "expected.npz")
ARRAYS = {
    "bert/a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bert/ab": np.float32([7]),
    "c": np.float32(1),
}


def bits(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@pytest.mark.parametrize("name", ["types.ckpt", "sharded.ckpt", "objects-1"])
def test_what_tensorflow_wrote(name):
    found = read_tensorflow(REAL / name)
    wanted = {key.partition("|")[2]: EXPECTED[key] for key in EXPECTED.files if key.startswith(f"{name}|")}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert bits(found[key]).dtype == value.dtype
        assert bits(found[key]).shape == value.shape
        assert bits(found[key]).tobytes() == value.tobytes()


def test_text_is_left_out_and_said():
    assert read_variables(REAL / "objects-1")[1] == {"_CHECKPOINTABLE_OBJECT_GRAPH": "text"}


@pytest.mark.parametrize("name", ["sharded.ckpt", "sharded.ckpt.index", "sharded.ckpt.data-00001-of-00003"])
def test_any_file_names_the_checkpoint(name):
    assert set(read_tensorflow(REAL / name)) == {"a", "b/c", "b/d"}


def test_tensors_are_their_own_memory(tmp_path):
    first = read_tensorflow(tables.write(tmp_path, ARRAYS))
    first["bert/a"].zero_()
    assert read_tensorflow(tmp_path / "m")["bert/a"].sum() == 15


@given(data=st.binary(max_size=1500))
@example(data=b"x" * 512)
@example(data=bytes(3 * 512))
def test_checksums_are_those_of_the_rfc(data):
    assert crc32c(data) == tables.slow_crc32c(data)
    assert unmasked(tables.masked(data)) == crc32c(data)


def test_checksums_of_known_data():
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_a_checksum_of_many_pieces():
    """Several groups of pieces, against one byte a step over a table made bit by bit."""
    data = (np.arange(2_500_000, dtype=np.uint64) * 2654435761 >> 7).astype(np.uint8)
    table = []
    for value in range(256):
        step = value
        for _ in range(8):
            step = step >> 1 ^ (0x82F63B78 if step & 1 else 0)
        table.append(step)
    register = 0xFFFFFFFF
    for value in data.tolist():
        register = register >> 8 ^ table[(register ^ value) & 0xFF]
    assert crc32c(data) == register ^ 0xFFFFFFFF


pairs = st.dictionaries(
    st.binary(min_size=1, max_size=20), st.binary(max_size=30), min_size=1, max_size=12
).map(lambda found: sorted(found.items()))


@settings(max_examples=50, deadline=None)
@given(content=pairs, cut=st.integers(1, 12), kind=st.sampled_from([0, 1]), share=st.booleans())
def test_tables_of_every_kind(content, cut, kind, share):
    parts = [content[start : start + cut] for start in range(0, len(content), cut)]
    data = tables.table([tables.stored(tables.block(part, share=share), kind) for part in parts])
    assert list(sstable.entries(data)) == content


def read(folder: Path, **changes):
    return read_tensorflow(tables.write(folder, ARRAYS, {"bert/ab": changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (1 << 40, 1 << 40)}, r"'bert/ab' of shape \[1099511627776, .*does not fit in 4 bytes"),
        ({"shape": (-1,)}, r"'bert/ab' has the impossible shape \[-1\]"),
        ({"shape": (1,) * 300}, "'bert/ab' has the impossible shape"),
        ({"shape": (1 << 60,), "size": 1 << 62}, "would end at byte .* it is cut off"),
        ({"offset": 1 << 62}, "would end at byte .* and the file has 32: it is cut off"),
        ({"offset": -4}, "'bert/ab' lies in file 0 of 1, at -4, 4 bytes"),
        ({"offset": 20}, "'bert/ab' lies on another variable"),
        ({"shard": 1}, "'bert/ab' lies in file 1 of 1"),
        ({"checksum": 7}, "the checksum of 'bert/ab' differs"),
        ({"size": -4}, "at 24, -4 bytes"),
        ({"dtype": 10, "shape": (4,)}, "neither true nor false"),
    ],
)
def test_entries_that_lie(tmp_path, changes, message):
    assert read(tmp_path)["bert/ab"].tolist() == [7]
    with pytest.raises(ArtifactError, match=message) as error:
        read(tmp_path, **changes)
    assert str(tmp_path / "m") in str(error.value)
    assert "restore it" in str(error.value)


def test_many_names_of_the_same_bytes_are_refused_before_they_are_read(tmp_path):
    arrays = {f"v{number:03d}": np.zeros(1000, np.float32) for number in range(100)}
    changes = {name: {"offset": 0} for name in arrays}
    with pytest.raises(ArtifactError, match="'v001' lies on another variable"):
        read_tensorflow(tables.write(tmp_path, arrays, changes))


GOOD = tables.stored(tables.block([(b"", tables.header()), (b"a", tables.entry(np.float32([1]), 0))]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not end as such a file does"),
        (b"x" * 100, "does not end as such a file does"),
        (tables.table([]), "it has no header"),
        (tables.table([tables.stored(tables.block([]))]), "an empty block"),
        (tables.table([tables.stored(tables.block([(b"a", b"")]))]), "begins with no header"),
        (tables.table([tables.stored(tables.block([(b"", tables.header(0))]))]), "speaks of 0 data files"),
        (tables.table([tables.stored(tables.block([(b"", tables.header(1 << 40))]))]), "speaks of 1,099,511"),
        (tables.table([tables.stored(tables.block([(b"", tables.header(1, 1))]))]), "big-endian"),
        (tables.table([GOOD, GOOD]), "its keys are not in order"),
        (tables.table([GOOD], [(0, len(GOOD) - 5)] * 2), "its blocks overlap"),
        (tables.table([GOOD], [(1 << 60, 5)]), "a block of 5 bytes at 1,152,921"),
        (tables.table([GOOD], [(0, 1 << 62)]), "a block of 4,611,686"),
        (tables.table([GOOD[:-1] + b"\0"]), "the checksum of the block at 0 differs"),
        (tables.table([tables.stored(b"abc", 7)]), "unknown compression 7"),
        (tables.table([tables.stored(b"abc")]), "a block is cut off"),
        (tables.table([tables.stored(b"\xff" * 8)]), "with 4,294,967,295 restarts"),
        (tables.table([tables.stored(b"\0\x7f\x7f" + bytes(4) + b"\1\0\0\0")]), "longer than its block"),
        (tables.table([tables.stored(tables.block([(b"a" * 5000, b"")]))]), "longer than any name"),
        (tables.table([tables.stored(tables.block([(b"", b"\x0f")]))]), "unknown wire type 7"),
        (tables.table([tables.stored(tables.block([(b"", b"\x12\x7f")]))]), "a field of 127 bytes"),
        (tables.table([tables.stored(tables.block([(b"", b"\x08" + b"\xff" * 10)]))]), "more than 64 bits"),
        (tables.table([tables.stored(tables.block([(b"", b"\x08\xff")]))]), "a number is cut off"),
        (tables.table([tables.stored(tables.block([(b"", b"\x00\x01")]))]), "a field without a number"),
    ],
)
def test_index_files_that_are_none(tmp_path, data, message):
    (tmp_path / "m.index").write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as error:
        read_tensorflow(tmp_path / "m")
    assert str(tmp_path / "m.index") in str(error.value)


def snappy_block(size: int, content: bytes) -> bytes:
    body = tables.number(size) + content + b"\1"
    return body + tables.masked(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (snappy_block(1 << 40, b"abc"), "that would be 1,099,511,627,776 without compression"),
        (snappy_block(90, b"\xf0abc"), "a compressed block is damaged"),
    ],
)
def test_compressed_blocks_that_lie(block, message):
    with pytest.raises(ValueError, match=message):
        list(sstable.entries(tables.table([block])))


def test_keys_that_share_a_long_prefix_are_bounded():
    """9,000 keys of 4,003 bytes, of which the file holds seven each."""
    content = tables.number(0) + tables.number(4003) + b"\0" + b"k" * 4000 + bytes(3)
    for number in range(1, 9000):
        content += tables.number(4000) + b"\3\0" + number.to_bytes(3, "big")
    with pytest.raises(ValueError, match="its keys are more than"):
        list(sstable.entries(tables.table([tables.stored(content + bytes(4) + b"\1\0\0\0")])))


def test_a_variable_in_parts():
    with pytest.raises(ArtifactError, match=r"'table' is stored in parts.*save it whole"):
        read_tensorflow(REAL / "parts.ckpt")


def test_a_missing_data_file_is_named(tmp_path):
    stem = tables.write(tmp_path, ARRAYS)
    (tmp_path / "m.data-00000-of-00001").unlink()
    with pytest.raises(
        ArtifactError, match=r"m\.data-00000-of-00001: this file of the checkpoint is missing"
    ):
        read_tensorflow(stem)


ORIGINAL = {file.name: file.read_bytes() for file in REAL.glob("types.ckpt.*")}
TRUE = read_tensorflow(REAL / "types.ckpt")


@settings(max_examples=250, deadline=None)
@given(
    which=st.sampled_from(sorted(ORIGINAL)),
    position=st.integers(0, 1 << 20),
    bit=st.integers(0, 7),
    how=st.sampled_from(["flip", "cut", "double"]),
)
def test_damage_is_refused_or_harmless(tmp_path_factory, which, position, bit, how):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    for name, content in ORIGINAL.items():
        broken = bytearray(content)
        if name == which:
            place = position % len(broken)
            broken[place] ^= 1 << bit
            broken = {"flip": broken, "cut": broken[:place], "double": broken[:place] + content}[how]
        (folder / name).write_bytes(broken)
    try:
        found, refusal = read_tensorflow(folder / "types.ckpt"), str(folder)
    except ArtifactError as error:
        found, refusal = TRUE, str(error)
    assert str(folder) in refusal
    assert found.keys() == TRUE.keys()
    assert all(bits(found[name]).tobytes() == bits(value).tobytes() for name, value in TRUE.items())


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 3),
    position=st.integers(0, 1 << 10),
    new=st.binary(max_size=6),
    gone=st.integers(0, 4),
)
def test_wrong_entries_with_right_checksums(tmp_path_factory, which, position, new, gone):
    """What a hostile writer can do: every tensor that is read has no more bytes than the data file."""
    stem = tables.write(tmp_path_factory.mktemp("wrong"), ARRAYS)
    pairs = list(sstable.entries(stem.with_name("m.index").read_bytes()))
    key, value = pairs[which]
    place = position % (len(value) + 1)
    pairs[which] = (key, value[:place] + new + value[place + gone :])
    stem.with_name("m.index").write_bytes(tables.table([tables.stored(tables.block(pairs))]))
    try:
        found, refusal = read_tensorflow(stem), str(stem)
    except ArtifactError as error:
        found, refusal = {}, str(error)
    assert str(stem) in refusal
    assert sum(tensor.nbytes for tensor in found.values()) <= 32
