import json
import struct
import time
import tracemalloc
import zlib

import pytest
import torch

import lianzhi as lz
from lianzhi.codebook import container, texts
from lianzhi.errors import ArtifactError


@pytest.fixture
def packed(tmp_path):
    torch.manual_seed(0)
    sparse = torch.where(torch.rand(60, 50) < 0.1, torch.randint(1, 9, (60, 50)) / 4, torch.zeros(60, 50))
    state = {
        "gaps": sparse,
        "mask": sparse.flip(0) + (torch.rand(60, 50) < 0.3) / 8,
        "codes": torch.randint(1, 5, (400,)).float(),
        "raw": torch.randn(20, 20),
        "raw2": torch.randn(20, 20),
        "constant": torch.ones(3000),
        "tied": sparse,
    }
    lz.codebook.pack(state, tmp_path / "a.lzc")
    return tmp_path / "a.lzc", state


def parts(path):
    """The header, and the sections with their checksums."""
    data = path.read_bytes()
    _, _, stored, _ = container.START.unpack(data[:20])
    return json.loads(zlib.decompress(data[24 : 24 + stored])), data[24 + stored :]


def forged(path, header, sections):
    """Write a file with the right checksum of its header."""
    text = json.dumps(header, separators=(",", ":")).encode()
    deflated = zlib.compress(text, 9)
    start = container.START.pack(container.MAGIC, container.VERSION, len(deflated), len(text))
    check = struct.pack("<I", zlib.crc32(deflated, zlib.crc32(start[8:])))
    path.write_bytes(start + check + deflated + sections)


def test_a_flipped_bit_anywhere_is_told(packed):
    path, _ = packed
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 400)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"a\.lzc"):
            lz.codebook.unpack(path)


def test_the_section_is_named(packed):
    path, _ = packed
    header, sections = parts(path)
    at = 0
    for entry in header["tensors"]:
        if "same" in entry:
            continue
        changed = bytearray(sections)
        changed[at + 4] ^= 1
        forged(path, header, changed)
        with pytest.raises(ArtifactError, match=f"the section of '{entry['name']}': its checksum is another"):
            lz.codebook.unpack(path)
        at += 4 + entry["bytes"]


def test_cut_or_longer_files_are_told(packed):
    path, _ = packed
    data = path.read_bytes()
    for end in (0, 5, 15, 23, 60, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ArtifactError):
            lz.codebook.unpack(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ArtifactError, match="and the file has"):
        lz.codebook.unpack(path)


def test_sections_cannot_change_places(packed):
    path, _ = packed
    header, sections = parts(path)
    lengths = [4 + entry["bytes"] for entry in header["tensors"] if "same" not in entry]
    begin = sum(lengths[:3])
    one, two = sections[begin : begin + lengths[3]], sections[begin + lengths[3] : begin + 2 * lengths[3]]
    assert lengths[3] == lengths[4]
    swapped = sections[:begin] + two + one + sections[begin + 2 * lengths[3] :]
    forged(path, header, swapped)
    with pytest.raises(ArtifactError, match="the section of 'raw': its checksum"):
        lz.codebook.unpack(path)
    header["tensors"][3]["name"], header["tensors"][4]["name"] = "raw2", "raw"
    forged(path, header, sections)
    with pytest.raises(ArtifactError, match="the section of 'raw2': its checksum"):
        lz.codebook.unpack(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1 << 40]}, "is not in"),
        ({"shape": [1 << 62, 1 << 62]}, "the shape"),
        ({"shape": [0, 1 << 62, 1 << 62]}, "the shape"),
        ({"shape": [-1]}, "the shape"),
        ({"shape": [True]}, "the shape"),
        ({"shape": [1] * 17}, "the shape"),
        ({"bytes": 1 << 50}, "is not in"),
        ({"bytes": -5}, "is not in"),
        ({"bytes": 1.5}, "is not in"),
        ({"dtype": "F31"}, "the type"),
        ({"dtype": []}, "the type"),
        ({"coding": "zip"}, "the coding"),
        ({"coding": {}}, "the coding"),
        ({"name": 7}, "its name"),
        ({"name": "gaps"}, "its name"),
        ({"extra": 7}, "its keys"),
    ],
)
def test_hostile_entries(packed, change, message):
    path, _ = packed
    header, sections = parts(path)
    header["tensors"][3].update(change)
    forged(path, header, sections)
    with pytest.raises(ArtifactError, match=message):
        lz.codebook.unpack(path)


@pytest.mark.parametrize("owner", ["nobody", "tied", "tie2", 3, None])
def test_hostile_ties(packed, owner):
    path, _ = packed
    header, sections = parts(path)
    header["tensors"].append({"name": "tie2", "same": owner})
    forged(path, header, sections)
    with pytest.raises(ArtifactError, match="there is no tensor"):
        lz.codebook.unpack(path)


@pytest.mark.parametrize(
    "header", [[], {}, {"tensors": {}, "architecture": 0}, {"tensors": [], "architecture": -1}]
)
def test_hostile_headers(packed, header):
    path, _ = packed
    forged(path, header, b"")
    with pytest.raises(ArtifactError, match="the header"):
        lz.codebook.unpack(path)


def test_a_header_that_inflates_without_end(packed):
    path, _ = packed
    deflated = zlib.compress(bytes(1 << 26), 9)
    start = container.START.pack(container.MAGIC, 1, len(deflated), 100)
    path.write_bytes(start + struct.pack("<I", zlib.crc32(deflated, zlib.crc32(start[8:]))) + deflated)
    with pytest.raises(ArtifactError, match="100 bytes of text"):
        lz.codebook.unpack(path)


def test_a_newer_version_says_so(packed):
    path, _ = packed
    data = path.read_bytes()
    start = data[:8] + struct.pack("<I", 2) + data[12:20]
    stored = container.START.unpack(start)[2]
    check = struct.pack("<I", zlib.crc32(data[24 : 24 + stored], zlib.crc32(start[8:])))
    path.write_bytes(start + check + data[24:])
    with pytest.raises(ArtifactError, match=r"has version 2.*pip install --upgrade"):
        lz.codebook.unpack(path)


def test_no_section_is_believed_even_with_its_checksum(packed):
    """Sections of random and of changed bytes, whose checksums are right: refused, or other numbers; nothing worse."""
    path, _ = packed
    header, sections = parts(path)
    generator = torch.Generator().manual_seed(0)
    outcomes = set()
    for case in range(300):
        index = case % 6
        entry = header["tensors"][index]
        begin = sum(4 + other["bytes"] for other in header["tensors"][:index])
        data = bytearray(sections[begin + 4 : begin + 4 + entry["bytes"]])
        at = int(torch.randint(0, min(40, len(data)), (), generator=generator))
        data[at] = int(torch.randint(0, 256, (), generator=generator))
        check = struct.pack("<I", container._checksum(index, entry, bytes(data)))
        forged(path, header, sections[:begin] + check + bytes(data) + sections[begin + 4 + entry["bytes"] :])
        try:
            lz.codebook.unpack(path)
            outcomes.add("read")
        except ArtifactError as error:
            outcomes.add("refused" if "the section of" in str(error) else str(error))
    assert outcomes == {"read", "refused"}


def grown(path, header, architecture=b""):
    """Write a file of a header and an architecture as given text, with right lengths and checksums."""
    section = b""
    if architecture:
        text = container.CHECK.pack(len(architecture)) + zlib.compress(architecture, 9)
        header = header.replace(b'"architecture":0', b'"architecture":%d' % len(text))
        section = b"".join(container._section(0, len(text), text))
    deflated = zlib.compress(header, 9)
    start = container.START.pack(container.MAGIC, container.VERSION, len(deflated), len(header))
    check = struct.pack("<I", zlib.crc32(deflated, zlib.crc32(start[8:])))
    path.write_bytes(start + check + deflated + section)


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b"1,", b'"",', b'"a very long and dull text",'])
@pytest.mark.parametrize("place", ["header", "architecture"])
def test_few_bytes_that_become_many_values_are_refused_before_these_are_made(tmp_path, unit, place):
    """Sixteen thousand bytes become megabytes of text, and those would become hundreds of megabytes of lists."""
    path = tmp_path / "a.lzc"
    values = unit * ((1 << 24) // len(unit) - 40)
    if place == "header":
        grown(path, b'{"tensors":[' + values[:-1] + b'],"architecture":0}')
    else:
        grown(path, b'{"tensors":[],"architecture":0}', b'{"format":1,"a":[' + values[:-1] + b"]}")
    tracemalloc.start()
    try:
        before = time.thread_time()
        with pytest.raises(ArtifactError, match=f"{place}.* more than a file of [0-9,]+ bytes can hold"):
            lz.load(path)
        assert time.thread_time() - before < 0.1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("unit", "count"), [(b"[],", 4000), (b"1,", 6000)])
def test_many_values_in_little_text_are_counted(tmp_path, unit, count):
    path = tmp_path / "a.lzc"
    values = unit * count
    grown(path, b'{"tensors":[],"architecture":0}', b'{"format":1,"a":[' + values[:-1] + b"]}")
    with pytest.raises(ArtifactError, match=r"architecture.*: [0-9,]+ values"):
        lz.load(path)


def test_a_header_that_deflates_too_well_is_filled_up(tmp_path):
    """Of thousands of empty tensors of sixteen dimensions the header is all of the file."""
    one = {"dtype": "F32", "shape": [0] * 16, "coding": "raw"}
    tensors = [({"name": str(index), **one}, b"") for index in range(4000)]
    size = container.write(tmp_path / "a.lzc", tensors)
    header, sections = parts(tmp_path / "a.lzc")
    text = json.dumps(header, separators=(",", ":")).encode()
    assert 28 + len(zlib.compress(text, 9)) + len(sections) < texts.least_bytes(text) <= size
    with container.Reader(tmp_path / "a.lzc") as reader:
        assert list(reader.entries) == [name["name"] for name, _ in tensors]


def test_an_architecture_that_deflates_too_well_is_filled_up(tmp_path):
    container.write(tmp_path / "a.lzc", [], {"format": 1, "a": [[]] * 50_000})
    with container.Reader(tmp_path / "a.lzc") as reader:
        assert reader.architecture() == {"format": 1, "a": [[]] * 50_000}
