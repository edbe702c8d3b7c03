"""TensorRT's calibration cache, against values worked out by hand and against struct."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lianzhi.errors import DataError
from lianzhi.quantize import read_tensorrt_cache, write_tensorrt_cache

GOOD = "TRT-100300-EntropyCalibration2\ninput: 3c008912\nmodel/a:0: 3f800000\n"


def write(folder, text):
    path = folder / "calibration.cache"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_known_value(tmp_path):
    found = read_tensorrt_cache(write(tmp_path, GOOD))
    assert found == {"input": pytest.approx(0.99634, abs=5e-6), "model/a:0": 127.0}


@pytest.mark.parametrize(
    ("version", "number"), [("10.3.0", "100300"), ("8.5.1", "8501"), ("10.16.1", "101601"), ("8.6", "8600")]
)
def test_versions(tmp_path, version, number):
    path = write_tensorrt_cache(tmp_path / "c", {"a": 1.0}, version=version)
    assert path.read_text().startswith(f"TRT-{number}-EntropyCalibration2\na: ")
    assert read_tensorrt_cache(path) == {"a": pytest.approx(1.0, rel=1e-6)}


def test_the_line_is_what_struct_says(tmp_path):
    path = write_tensorrt_cache(tmp_path / "c", {"x:0": 2.64})
    assert path.read_text().splitlines()[1] == f"x:0: {struct.pack('>f', 2.64 / 127).hex()}"


def test_min_max_and_carriage_returns_and_short_hex(tmp_path):
    text = "TRT-8501-MinMaxCalibration\r\nx: 3f800000\r\ny: 0\r\n"
    assert read_tensorrt_cache(write(tmp_path, text)) == {"x": 127.0, "y": 0.0}


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1),
        st.floats(1e-30, 1e30),
        min_size=1,
        max_size=8,
    )
)
def test_round_trip(tmp_path_factory, amax):
    path = write_tensorrt_cache(tmp_path_factory.mktemp("c") / "c", amax)
    found = read_tensorrt_cache(path)
    assert list(found) == list(amax)
    assert all(found[name] == pytest.approx(amax[name], rel=1e-6) for name in amax)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line is ''"),
        ("input: 3c008912\n", "not 'TRT-"),
        ("TRT-110000-EntropyCalibration2\na: 3c008912\n", "TensorRT 11.0.0 has no calibration cache"),
        ("TRT-101700-EntropyCalibration2\na: 3c008912\n", "10.17.0 has no calibration cache"),
        ("TRT-100300-LegacyCalibration\na: 3c008912\n", "calibrator 'LegacyCalibration'"),
        ("TRT-100300-EntropyCalibration2\n", "names no tensor"),
        (GOOD[:-4], "truncated"),
        ("TRT-100300-EntropyCalibration2\nno colon\n", "line 2: 'no colon'"),
        ("TRT-100300-EntropyCalibration2\na: xyz\n", "line 2"),
        ("TRT-100300-EntropyCalibration2\na: 7fc00000\n", "line 2: the scale of 'a' is nan"),
        ("TRT-100300-EntropyCalibration2\na: bf800000\n", "line 2: the scale of 'a' is -1"),
        ("TRT-100300-EntropyCalibration2\na: 3f800000\na: 3f800000\n", "line 3: 'a' is there twice"),
        (b"\xff\xfe\x00", "binary data"),
    ],
)
def test_bad_caches(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_tensorrt_cache(write(tmp_path, text))


@pytest.mark.parametrize(
    ("amax", "version", "message"),
    [
        ({}, "10.3.0", "no tensor"),
        ({"a\nb": 1.0}, "10.3.0", "cannot hold the name"),
        ({"a": 0.0}, "10.3.0", "positive"),
        ({"a": float("nan")}, "10.3.0", "positive"),
        ({"a": 1e300}, "10.3.0", "positive"),
        ({"a": "much"}, "10.3.0", "positive"),
        ({"a": None}, "10.3.0", "positive"),
        ({1: 1.0}, "10.3.0", "cannot hold the name"),
        ({"a": 1.0}, "11.0.0", "no calibration cache"),
        ({"a": 1.0}, "ten", "write it as 10.3.0"),
        ({"a": 1.0}, None, "write it as 10.3.0"),
    ],
)
def test_nothing_is_written(tmp_path, amax, version, message):
    with pytest.raises(DataError, match=message):
        write_tensorrt_cache(tmp_path / "c", amax, version=version)
    assert not (tmp_path / "c").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_tensorrt_cache(tmp_path / "none")
